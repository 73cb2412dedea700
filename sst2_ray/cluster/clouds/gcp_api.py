"""Calls to Google Compute Engine about a cluster's machines in all zones of its region."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime

from sst2_ray.cluster.clouds.base import Instance
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.ray_private import google_compute
from sst2_ray.config.section import Section
from sst2_ray.errors import InputError

_STATES = {
    "PROVISIONING": "pending", "STAGING": "pending", "STOPPING": "shutting-down", "SUSPENDED": "stopped", "TERMINATED": "stopped",
}  # fmt: skip
"""Google's states in EC2's words; what else there is, is running. A machine that is deleted goes through STOPPING."""


def instances_of(cluster: ClusterFile) -> list[Instance] | None:
    """Return the cluster's machines, stopped ones too; None without Google's library. Raises InputError where Google refuses."""
    found: list[Instance] = []
    with _one_line_refusals():
        compute = google_compute(cluster.provider.raw)
        if compute is None:
            return None
        project, label = cluster.provider.text("project_id"), f"labels.ray-cluster-name={cluster.name}"
        request = compute.instances().aggregatedList(project=project, filter=label)
        while request is not None:
            page = request.execute()
            for place, listed in Section(page).section("items").named():
                zone = place.rsplit("/", 1)[-1]
                if zone.startswith(f"{cluster.provider.text('region')}-"):  # a name may be used in several regions
                    found += [_instance(machine, zone) for machine in listed.sections("instances")]
            request = compute.instances().aggregatedList_next(request, page)
    return found


def end_instances(cluster: ClusterFile) -> None:
    """Delete the cluster's machines, and wait for it. One that Google does not delete is listed afterwards."""
    compute, project = google_compute(cluster.provider.raw), cluster.provider.text("project_id")
    deleted = []
    for instance in instances_of(cluster) or ():
        with contextlib.suppress(Exception):  # it is gone, or going, since the list was made
            request = compute.instances().delete(project=project, zone=instance.zone, instance=instance.id)
            deleted.append({"zone": instance.zone, "operation": request.execute()["name"]})
    with _one_line_refusals():
        for operation in deleted:
            compute.zoneOperations().wait(project=project, **operation).execute()


@contextlib.contextmanager
def _one_line_refusals() -> Iterator[None]:
    """Turn what Google refuses (no credentials, expired ones, no right) into an InputError of one line."""
    try:
        yield
    except Exception as problem:  # Google's libraries each have their own
        text = " ".join(str(problem).split())[:300]
        remedy = "gcloud auth application-default login, or ask somebody with the right"
        raise InputError(f"Google Cloud: {text}; {remedy}") from None


def _instance(machine: Section, zone: str) -> Instance:
    kind, scheduling = machine.text("machineType").rsplit("/", 1)[-1], machine.section("scheduling")
    attached = machine.sections("guestAccelerators") if kind.startswith("n1-") else []  # others' kind brings them
    for gpu in attached:  # then the list price of its kind is not the machine's
        kind += f" with {gpu.text('acceleratorCount')} {gpu.text('acceleratorType').rsplit('/', 1)[-1]}"
    made = machine.text("creationTimestamp")
    return Instance(
        id=machine.text("name"),
        state=_STATES.get(machine.text("status"), "running"),
        machine=kind,
        spot=scheduling.text("provisioningModel") == "SPOT" or scheduling.get("preemptible") is True,
        started_s=datetime.fromisoformat(made).timestamp() if made else None,
        zone=zone,
    )
