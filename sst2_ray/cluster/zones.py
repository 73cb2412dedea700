"""A cluster lies in one zone, where nothing that its workers send each other is charged; where capacity lacks it moves to the next."""

from __future__ import annotations

import re
import sys

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.down import down, run_ray
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.errors import FailureClass, InputError, RunFailedError


def zone_after(cluster: ClusterFile) -> str | None:
    """Return the file's zone after the one that the cluster lies in, None after the last."""
    zones = cluster.zones
    if cluster.zone not in zones:
        return zones[0] if zones else None
    return next(iter(zones[zones.index(cluster.zone) + 1 :]), None)


def wanted_zone(cluster: ClusterFile, *, zone: str | None, next_zone: bool) -> str | None:
    """Return the zone to move to, None to stay. Raises InputError where there is none, or the file says nothing of zones."""
    if zone is None and not next_zone:
        return None
    if not cluster.zones:
        raise InputError(f"{cluster.path}: lists no zones (provider.availability_zone); there is none to choose")
    region = cluster.provider.text("region")
    if zone is not None:
        if zone not in cluster.zones and not re.fullmatch(f"{re.escape(region)}-?[a-z]", zone):
            raise InputError(f"--zone {zone}: not a zone of {region}; the file lists {', '.join(cluster.zones)}")
        return zone if zone != cluster.zone else None
    following = zone_after(cluster)
    if following is None:
        raise InputError(
            f"--next-zone: {cluster.zone} is the last of {', '.join(cluster.zones)}; list another in {cluster.path}, or "
            f"begin anew with --zone {cluster.zones[0]}"
        )
    return following


def find_zone(cluster: ClusterFile, zone: str | None) -> None:
    """Refuse to start a second cluster beside machines in another zone, of which Ray, asking Google about one zone, knows nothing.

    Where they lie in `zone` alone, the cluster is looked for there from now on. Raises InputError.
    """
    if cluster.platform != "gcp":
        return
    alive = [machine for machine in cloud_of(cluster).status(cluster) or () if machine.state in ("pending", "running")]
    used = sorted({machine.zone for machine in alive})
    if used == [zone]:
        cluster.set_zone(zone)
    elif others := [name for name in used if name != cluster.zone]:
        stay = f"go on there with --zone {others[0]}, or " if len(used) == 1 else ""
        raise InputError(
            f"{cluster.name} has machines in {', '.join(others)}, and is looked for in {cluster.zone}; {stay}end all of them "
            f"with `sst2-ray down {cluster.path}`"
        )


def leave(cluster: ClusterFile, zone: str, *, is_running: bool) -> None:
    """End the cluster where it runs, and remember the zone, and the times, that it will be started with."""
    limits = cluster.limits
    if is_running:
        down(cluster)
    cluster.set_zone(zone)
    cluster.set_limits(limits)


def move(cluster: ClusterFile, zone: str) -> None:
    """End a running cluster and start it in another zone. Raises RunFailedError where `ray up` fails."""
    leave(cluster, zone, is_running=True)
    start(cluster)


def start(cluster: ClusterFile) -> None:
    """Run `ray up`. Raises RunFailedError where it fails; a machine that its set-up has not reached yet ends by nobody but `down`."""
    ends = f"`sst2-ray down {cluster.path}` ends what was started"
    try:
        code = run_ray(["up", "--yes", "--no-config-cache", str(cluster.for_ray())], cluster)
    except KeyboardInterrupt:
        print(f"{cluster.name} may run, and may not end by itself yet; {ends}", file=sys.stderr, flush=True)
        raise
    if code != 0:
        where = f" in {cluster.zone}" if cluster.zone else ""
        raise RunFailedError(
            f"ray up {cluster.path} failed{where} with exit code {code}, see above; {ends}",
            failure_class=FailureClass.BUG,
        )
