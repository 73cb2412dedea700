"""The plan of a job on a cluster: machines, zone, dollars an hour and for the job, and where everybody forgets it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sst2_ray import formatting
from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.file import PLACEHOLDER, ClusterFile, NodeType
from sst2_ray.cluster.prices import ZONE_USD_PER_GB
from sst2_ray.cluster.pricing import Pricing, by_priority, forgotten_words, machine_for, price_cluster
from sst2_ray.cluster.submit.forecast import JobForecast, forecast_job


def plan_rows(
    cluster: ClusterFile, command: Sequence[str], folder: Path, *, hours: float | None = None
) -> list[tuple[str, str]]:
    """Return name and value of each line of the plan.

    Args:
        cluster: that the job is for.
        command: of the job.
        folder: that it will run in.
        hours: length of the job; None: it is forecast, where the command is this package's.
    """
    pricing = price_cluster(cluster)
    if pricing is None:
        machines = f"{formatting.count(len(cluster.hosts), 'machine')} of your own: no list price"
        return [*_open_rows(cluster), *([("machines", machines)] if cluster.hosts else [])]
    workers = [node_type for node_type in by_priority(cluster) if not node_type.is_head]
    machine = machine_for(cloud_of(cluster), workers[0]) if workers else None
    forecast = forecast_job(command, folder, machine)
    rows = [
        *_open_rows(cluster),
        ("machines", ", ".join(_machine_words(cluster, node_type) for node_type in by_priority(cluster))),
        ("zone", _zone_words(cluster, forecast)),
    ]
    if not pricing.is_known:
        return [*rows, ("cost", f"no price is recorded for {', '.join(pricing.unknown)}")]
    return [
        *rows,
        ("an hour", _hour_words(pricing, forecast)),
        ("this job", _job_words(pricing, forecast, hours)),
        *_results_rows(command, forecast),
        *([("more workers", forecast.more_workers)] if forecast.more_workers else []),
        ("forgotten", forgotten_words(pricing, forecast.num_workers)),
    ]


def _open_rows(cluster: ClusterFile) -> list[tuple[str, str]]:
    names = dict.fromkeys(name for _, text in cluster.document.strings() for name in PLACEHOLDER.findall(text))
    return [("to fill in", f"{formatting.join(list(names))}: the file cannot be used before")] if names else []


def _results_rows(command: Sequence[str], forecast: JobForecast) -> list[tuple[str, str]]:
    """Say where results go that have no storage folder of their own."""
    told = any(word.replace("_", "-").startswith(("--storage-path", "--config", "--resume")) for word in command)
    if told or forecast.num_workers is None:
        return []
    return [("results", "on the head's disk, and gone with it; --storage-path s3://... (gs://, abfs://) keeps them")]


def _machine_words(cluster: ClusterFile, node_type: NodeType) -> str:
    cloud = cloud_of(cluster)
    name, machine = cloud.machine_name(node_type), machine_for(cloud, node_type)
    sizes = ""
    if machine is not None:
        gpus = f"{machine.gpus} {machine.gpu}, " if machine.gpus else ""
        price = f", {formatting.dollars(machine.usd_per_hour)} an hour" if machine.usd_per_hour else ""
        sizes = f" ({gpus}{machine.cpus} CPUs, {machine.memory_gib:g} GiB{price})"
    if node_type.is_head:
        return f"head {name}{sizes}"
    market = " on spot, below that price" if cloud.is_spot(node_type) else ""
    return f"{node_type.min_workers} to {node_type.max_workers} {name}{sizes}{market}"


def _zone_words(cluster: ClusterFile, forecast: JobForecast) -> str:
    provider = cluster.provider
    place = cluster.zone or provider.text("location") or provider.text("region")
    if others := [zone for zone in cluster.zones if zone != cluster.zone]:
        place += f" (--next-zone: {', '.join(others)})"
    listed = cloud_of(cluster).price_list
    per_gb = ZONE_USD_PER_GB[listed] if listed else 0.0
    if not per_gb:
        return f"{place}; traffic between zones is not charged"
    if forecast.sent_bytes is None or forecast.num_workers is None:
        return f"{place}, for all workers: a gigabyte between zones would cost {formatting.dollars(per_gb)}"
    gigabytes, workers = forecast.sent_bytes / 1e9, max(2, forecast.num_workers)
    return (
        f"{place}, for all workers: nothing crosses zones. {workers} workers in as many zones would pay up to "
        f"{formatting.dollars(gigabytes * per_gb)} for {gigabytes:,.0f} GB between them"
    )


def _hour_words(pricing: Pricing, forecast: JobForecast) -> str:
    said = [f"{formatting.dollars(pricing.idle)} idle"]
    if forecast.num_workers is not None:
        busy = formatting.dollars(pricing.with_workers(forecast.num_workers))
        said.append(f"{busy} with this job's {formatting.count(forecast.num_workers, 'worker')}")
    limit = pricing.cluster.max_workers
    said.append(f"at most {formatting.dollars(pricing.most)} with {limit} workers{pricing.spot_note}")
    return f"{', '.join(said)} ({pricing.source})"


def _job_words(pricing: Pricing, forecast: JobForecast, hours: float | None) -> str:
    count = forecast.num_workers if forecast.num_workers is not None else pricing.cluster.max_workers
    per_hour = pricing.with_workers(count)
    workers = formatting.count(count, "worker")
    if hours is not None:
        return f"{hours:g} hours with {workers}: {formatting.dollars(hours * per_hour)}{pricing.spot_note}"
    if forecast.seconds is None:
        return f"its length is not known ({forecast.why_unknown}); --hours H states the cost of H hours"
    least = formatting.dollars(forecast.seconds / 3600 * per_hour)
    idle_minutes = pricing.cluster.document.number("idle_timeout_minutes") or 0.0
    after = formatting.dollars(idle_minutes / 60 * per_hour)
    return (
        f"at least {formatting.duration(forecast.seconds)} with {workers}, on paper at the GPU's peak: at least {least}; "
        f"the minutes in which machines start come on top, and {idle_minutes:g} idle ones afterwards ({after})"
    )
