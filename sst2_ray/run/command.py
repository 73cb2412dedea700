"""`sst2-ray train`."""

from __future__ import annotations

from sst2_ray.config.sources import read_train_command


def main(argv: list[str]) -> int:
    """Run `sst2-ray train`; return its exit code."""
    command, config = read_train_command(argv, prog="sst2-ray train")
    from sst2_ray.run.planning.nodes import machines_on_demand  # not for --help and wrong flags
    from sst2_ray.run.train import dry_run, train

    if command.dry_run:
        dry_run(
            config,
            calibrate=command.calibrate,
            network_gbit_per_s=command.network_gbit_per_s,
            on=machines_on_demand(command.plan_gpu, command.plan_gpus_per_node) if command.plan_gpu else None,
            as_json=command.json,
        )
    else:
        train(config)
    return 0
