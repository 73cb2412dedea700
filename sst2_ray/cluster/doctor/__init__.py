"""`sst2-ray doctor`: finds what would fail, or cost money, before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sst2_ray.cluster.doctor.findings import Finding, error, failed, ok
from sst2_ray.cluster.file import ClusterFile, load_cluster_file, use_token_if_present
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check this machine, a cluster file, and the cluster that runs from it."""

    cluster: Positional[str | None] = None
    """Cluster file (ray_cluster.yaml, cluster/*.yaml). None: this machine, and --address if given."""
    address: str | None = None
    """Job server of a running cluster, e.g. http://127.0.0.1:8265."""
    offline: bool = False
    """Look at the file only: no SSH, no job, no cloud."""
    ask_cloud: bool = False
    """Ask AWS, with your credentials: image, instance types, quota, the group's rules, the roles, what still runs."""
    storage_path: str | None = None
    """Storage that every node must reach and share; checked by a job on the running cluster."""
    model: str | None = None
    """Model that every node must reach."""
    data: str | None = None
    """Data that every node must reach."""
    rehearse: bool = False
    """Train for 20 seconds on one node of each kind of the running cluster."""
    price_per_hour: float | None = None
    """US dollars an hour of one worker, for the cost; None: the table of list prices."""
    hours: float | None = None
    """Length of the job to state the cost of."""
    workers: int | None = None
    """Workers of the job to state the cost of; None: all that the file allows."""
    verbose: bool = False
    """Print what passed, too, one line each."""


def main(argv: list[str]) -> int:
    """Print the report; 0 if nothing would fail, 2 otherwise."""
    config = parse(DoctorConfig, argv, prog="sst2-ray doctor")
    cluster = load_cluster_file(config.cluster) if config.cluster else None
    use_token_if_present()
    findings = [*examine_file(cluster, config), *examine_cluster(cluster, config)]
    return report(findings, verbose=config.verbose or cluster is None)


def examine_file(cluster: ClusterFile | None, config: DoctorConfig) -> list[Finding]:
    """This machine and the file: what can be told without any other machine."""
    from sst2_ray.cluster.doctor import aws, azure, gcp, kuberay, onprem
    from sst2_ray.cluster.doctor.laptop import check_laptop
    from sst2_ray.cluster.doctor.machines import check_cost
    from sst2_ray.cluster.doctor.ray_file import check_ray_file

    findings = check_laptop(cluster)
    if cluster is None:
        return findings
    if cluster.platform == "kuberay":
        return [*findings, *kuberay.check_kuberay(cluster)]
    own = {"aws": aws.check_aws, "gcp": gcp.check_gcp, "azure": azure.check_azure, "local": onprem.check_onprem}
    return [
        *findings,
        *check_ray_file(cluster),
        *own[cluster.platform](cluster),
        *check_cost(cluster, worker_price=config.price_per_hour, hours=config.hours, workers=config.workers),
    ]


def examine_cluster(cluster: ClusterFile | None, config: DoctorConfig) -> list[Finding]:
    """The machines behind the file or the address, as far as they are there."""
    if config.offline:
        return []
    findings: list[Finding] = []
    if cluster is not None and cluster.platform == "aws" and config.ask_cloud:
        from sst2_ray.cluster.doctor.aws_account import check_account

        findings += check_account(cluster)
    if cluster is not None and cluster.platform == "local":
        from sst2_ray.cluster.doctor.node_versions import check_hosts
        from sst2_ray.cluster.doctor.onprem import hosts_of

        findings += check_hosts(cluster, hosts_of(cluster), up=False)
        if failed(findings):
            return findings
    wanted = bool(config.storage_path or config.model or config.data or config.rehearse)
    if config.address or wanted:
        findings += _running(cluster, config)
    return findings


def _running(cluster: ClusterFile | None, config: DoctorConfig) -> list[Finding]:
    from sst2_ray.cluster.doctor.cluster import check_cluster

    options = {
        "storage_path": config.storage_path,
        "model": config.model,
        "data": config.data,
        "rehearse": config.rehearse,
    }
    with ExitStack() as stack:
        try:
            address, heal = config.address or os.environ.get("RAY_API_SERVER_ADDRESS"), lambda: None
            if not config.address and cluster is not None:
                from sst2_ray.cluster.ssh import tunnel_to

                tunnel = stack.enter_context(tunnel_to(cluster))
                address, heal = tunnel.url, tunnel.ensure
            if address is None:
                return [
                    error(
                        "cluster",
                        "nothing to ask: no cluster file, --address or RAY_API_SERVER_ADDRESS",
                        "name the cluster",
                    )
                ]
            return check_cluster(address, heal, options)
        except InputError as problem:
            return [
                error("cluster", str(problem), "start it with `sst2-ray up`, or leave out what needs a running cluster")
            ]


def report(findings: Sequence[Finding], *, verbose: bool) -> int:
    """Errors last, where the eye is; the exit code."""
    order = {"ok": 0, "warning": 1, "error": 2}
    passed = [finding for finding in findings if finding.level == "ok"]
    shown = [
        finding for finding in findings if verbose or finding.level != "ok" or finding.where in ("cost", "lockstep")
    ]
    for finding in sorted(shown, key=lambda item: order[item.level]):
        print(finding.line())
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    counts = f"{_many(errors, 'error')}, {_many(warnings, 'warning')}, {_many(len(passed), 'check')} passed"
    print(f"doctor: {counts}", file=sys.stderr)
    return 2 if errors else 0


def _many(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


__all__ = ["DoctorConfig", "Finding", "examine_cluster", "examine_file", "main", "ok", "report"]
