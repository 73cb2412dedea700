"""`sst2-ray doctor`: finds what would fail, or cost money, before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor.build_files import check_build_file
from sst2_ray.cluster.doctor.laptop import check_laptop
from sst2_ray.cluster.doctor.node_versions import check_hosts
from sst2_ray.cluster.doctor.ray_file import check_ray_file, check_text
from sst2_ray.cluster.file import ClusterFile, load_cluster_file, shipped, use_token_if_present
from sst2_ray.cluster.findings import Finding, Findings
from sst2_ray.cluster.pricing import check_prices
from sst2_ray.cluster.ssh import Tunnel
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import ExitCode, InputError
from sst2_ray.formatting import count
from sst2_ray.terminal import busy


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check this machine, a cluster file, and the cluster that runs from it."""

    cluster: Positional[str | None] = None
    """Cluster file (ray_cluster.yaml, cluster/*.yaml, slurm.sbatch), or a file beside it: Dockerfile, aws-account.yaml, serve.yaml,
    a script of cluster/node. None: this machine, and --address if given."""
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
    """Take 20 steps of the training loop on one node of each kind of the running cluster."""
    price_per_hour: float | None = None
    """US dollars an hour of one worker, for the cost; None: the table of list prices."""
    hours: float | None = None
    """Length of the job to state the cost of."""
    workers: int | None = None
    """Workers of the job to state the cost of; None: all that the file allows."""
    verbose: bool = False
    """Print what passed, too, one line each."""


def main(argv: list[str]) -> int:
    """Print the report; return 0 if nothing would fail, 2 otherwise."""
    config = parse(DoctorConfig, argv, prog="sst2-ray doctor")
    built = check_build_file(shipped(config.cluster)) if config.cluster else None
    if built is not None:
        return report(built, verbose=True)
    cluster = load_cluster_file(config.cluster) if config.cluster else None
    use_token_if_present(cluster)
    with busy(f"checking {config.cluster or 'this machine'}"):
        findings = [*examine_file(cluster, config), *examine_cluster(cluster, config)]
    not_asked = ""
    if cluster is not None and cloud_of(cluster).asks_account and not (config.ask_cloud or config.offline):
        not_asked = "the cloud (quota, types, bucket: --ask-cloud)"
    return report(findings, verbose=config.verbose or cluster is None, not_asked=not_asked)


def examine_file(cluster: ClusterFile | None, config: DoctorConfig) -> Findings:
    """Check this machine, then the file: what can be told without any other machine."""
    found = check_laptop(cluster)
    if cluster is not None:
        found += check_file(cluster, config)
    return found


def check_file(cluster: ClusterFile, config: DoctorConfig) -> Findings:
    """Check the file alone."""
    cloud = cloud_of(cluster)
    found = check_text(cluster)
    if cloud.starts_by_ray:
        found += check_ray_file(cluster, sizes_from_cloud=cloud.sizes_from_cloud)
    found += cloud.check(cluster)
    found += check_prices(cluster, worker_price=config.price_per_hour, hours=config.hours, workers=config.workers)
    return found


def examine_cluster(cluster: ClusterFile | None, config: DoctorConfig) -> Findings:
    """Check the machines behind the file or the address, as far as they are there."""
    found = Findings()
    if config.offline:
        return found
    if cluster is not None and config.ask_cloud:
        found += cloud_of(cluster).check_account(cluster)
    if cluster is not None and cluster.hosts:
        found += check_hosts(cluster, up=False)
        if found.failed:
            return found
    if config.address or config.storage_path or config.model or config.data or config.rehearse:
        found += _check_running(cluster, config)
    return found


def _check_running(cluster: ClusterFile | None, config: DoctorConfig) -> Findings:
    from sst2_ray.cluster.doctor.running import check_cluster

    options = {
        "storage_path": config.storage_path,
        "model": config.model,
        "data": config.data,
        "rehearse": config.rehearse,
    }
    found = Findings()
    with ExitStack() as stack:
        try:
            address, heal = config.address or os.environ.get("RAY_API_SERVER_ADDRESS"), lambda: None
            if not config.address and cluster is not None:
                cloud = cloud_of(cluster)
                tunnel = stack.enter_context(Tunnel(cloud.host(cluster, cloud.head(cluster))))
                address, heal = tunnel.url, tunnel.ensure
            if address is None:
                what = "nothing to ask: no cluster file, --address or RAY_API_SERVER_ADDRESS"
                found.error("cluster", what, "name the cluster")
            else:
                found += check_cluster(address, heal, options)
        except InputError as problem:
            found.error(
                "cluster", str(problem), "start it with `sst2-ray up`, or leave out what needs a running cluster"
            )
    return found


def report(findings: Sequence[Finding], *, verbose: bool, not_asked: str = "") -> int:
    """Print errors last, where the eye is, and what could have been asked as well; return the exit code."""
    always = ("cost", "node versions")
    shown = [finding for finding in findings if verbose or finding.level != "ok" or finding.where in always]
    for finding in sorted(shown, key=lambda finding: ("ok", "warning", "error").index(finding.level)):
        print(finding.line())
    levels = [finding.level for finding in findings]
    errors = levels.count("error")
    counts = (count(errors, "error"), count(levels.count("warning"), "warning"), count(levels.count("ok"), "check"))
    print(f"doctor: {', '.join(counts)} passed{f'; not asked: {not_asked}' if not_asked else ''}", file=sys.stderr)
    return ExitCode.WRONG_INPUT if errors else ExitCode.SUCCEEDED
