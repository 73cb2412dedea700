"""Checks of one machine type that are the same on every cloud, and what a cluster costs."""

from __future__ import annotations

from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.ray_file import declared_gpus, node_config, node_types
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.prices import Machine, machine_of, price_note


def check_machine(
    where: str, machine: Machine | None, name: str, node_type: dict[str, Any], *, is_head: bool
) -> list[Finding]:
    """GPU count, age of the GPU, memory. `machine`: None where the table does not know the type."""
    if machine is None:
        return [
            warning(
                where,
                f"{name} exists but is not in the table of prices: its GPUs, memory and cost are not checked",
                "give --price-per-hour for the cost",
            )
        ]
    findings = _head(where, machine) if is_head else _worker(where, machine, node_type)
    if machine.gpus and not machine.bf16:
        findings.append(
            warning(
                where,
                f"{machine.gpu} has neither bf16 nor FlashAttention 2: fp32 and sdpa, several times slower",
                "L4, A10, A100 and newer have them",
            )
        )
    gpu = f"{machine.gpus} {machine.gpu}, " if machine.gpus else ""
    return findings or [ok(where, f"{name}: {gpu}{machine.cpus} CPUs, {machine.memory_gib:g} GiB")]


def _head(where: str, machine: Machine) -> list[Finding]:
    findings = []
    if machine.gpus:
        findings.append(
            warning(
                where,
                f"the head is a GPU machine ({machine.gpus} {machine.gpu}), paid from `up` to `down`",
                "a small machine without GPU does",
            )
        )
    if machine.memory_gib < 8:
        findings.append(warning(where, f"{machine.memory_gib:g} GiB for Ray's services and the drivers", "16 GiB do"))
    return findings


def _worker(where: str, machine: Machine, node_type: dict[str, Any]) -> list[Finding]:
    findings = []
    gpus, cpus = declared_gpus(node_type), (node_type.get("resources") or {}).get("CPU")
    if gpus is not None and gpus != machine.gpus:
        findings.append(
            error(
                where,
                f"{machine.name} has {machine.gpus} GPUs, resources declare {gpus}: runs would wait for ever or leave GPUs idle",
                f"set resources.GPU to {machine.gpus}",
            )
        )
    if not machine.gpus:
        findings.append(
            warning(
                where,
                f"{machine.name} has no GPU: training runs on its CPUs",
                "choose a machine with a GPU unless that is meant",
            )
        )
    if isinstance(cpus, int) and cpus > machine.cpus:
        findings.append(
            error(
                where,
                f"{machine.name} has {machine.cpus} CPUs, resources declare {cpus}",
                f"set resources.CPU to {machine.cpus}",
            )
        )
    return findings


def machine_name(cluster: ClusterFile, node_type: dict[str, Any]) -> str:
    """The machine type that a node type asks for."""
    config = node_config(node_type)
    if cluster.platform == "aws":
        return str(config.get("InstanceType", ""))
    if cluster.platform == "gcp":
        return str(config.get("machineType", ""))
    return str((config.get("azure_arm_parameters") or {}).get("vmSize", ""))


def is_spot(cluster: ClusterFile, node_type: dict[str, Any]) -> bool:
    """Whether a node type asks for machines that can be taken away."""
    config = node_config(node_type)
    if cluster.platform == "aws":
        return bool(config.get("InstanceMarketOptions"))
    if cluster.platform == "gcp":
        scheduling = config.get("scheduling")
        entries = scheduling if isinstance(scheduling, list) else [scheduling]
        return any(
            isinstance(entry, dict) and (entry.get("preemptible") or entry.get("provisioningModel") == "SPOT")
            for entry in entries
        )
    return (config.get("azure_arm_parameters") or {}).get("priority") == "Spot"


def check_cost(
    cluster: ClusterFile, *, worker_price: float | None, hours: float | None, workers: int | None
) -> list[Finding]:
    """Dollars an hour idle and at most, and for a job of `hours` with `workers`. `worker_price`: dollars an hour of one worker."""
    if cluster.platform not in ("aws", "gcp", "azure"):
        return []
    head_name, head_price = str(cluster.config.get("head_node_type")), None
    worker_prices: list[tuple[float, int, bool]] = []
    idle, unknown = 0.0, []
    for name, node_type in node_types(cluster).items():
        machine = machine_of(cluster.platform, machine_name(cluster, node_type))
        price = machine.usd_per_hour if machine else None
        if name == head_name:
            head_price = price
            continue
        price = worker_price if worker_price is not None else price
        if price is None:
            unknown.append(machine_name(cluster, node_type) or name)
            continue
        idle += price * int(node_type.get("min_workers") or 0)
        worker_prices.append((price, int(node_type.get("max_workers") or 0), is_spot(cluster, node_type)))
    if head_price is None or unknown:
        what = ", ".join([*unknown, *([] if head_price is not None else ["the head's machine"])])
        return [
            warning(
                "cost",
                f"no price is recorded for {what}",
                "give --price-per-hour for one worker, or see the vendor's page",
            )
        ]
    limit = int(cluster.config.get("max_workers") or 0)
    most = sum(sorted((price for price, count, _ in worker_prices for _ in range(count)), reverse=True)[:limit])
    source = "your price for a worker" if worker_price is not None else price_note(cluster.platform)
    cheaper = ", spot workers below that" if any(spot for *_, spot in worker_prices) and worker_price is None else ""
    findings = [
        ok(
            "cost",
            f"${head_price + idle:.2f} an hour idle, at most ${head_price + most:.2f} with {limit} workers{cheaper} ({source})",
        )
    ]
    if hours and worker_prices:
        count = min(workers or limit, limit)
        job = hours * (head_price + count * min(price for price, *_ in worker_prices))
        findings.append(ok("cost", f"a job of {hours:g} hours on {count} workers: ${job:.2f}{cheaper}"))
    return findings
