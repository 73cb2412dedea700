"""`sst2-ray cost`: what runs now and what it has cost, from the cloud's own list."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.cluster.clouds import Instance, cloud_of
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.cluster.prices import machine_of, price_note
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import parse
from sst2_ray.errors import ExitCode, InputError
from sst2_ray.terminal import busy, console

_BILLED = ("running", "pending", "stopping")


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Say which machines of a cluster run, since when, and what they have cost at list prices."""

    cluster: Positional[str]
    """Cluster file."""


def main(argv: list[str]) -> int:
    """Print one line a machine and the sum. Raises InputError where the cloud cannot be asked."""
    config = parse(CostConfig, argv, prog="sst2-ray cost")
    cluster = load_cluster_file(config.cluster)
    cloud = cloud_of(cluster)
    with busy(f"asking {cluster.platform}"):
        instances = cloud.status(cluster) if cloud.price_list else None
    if instances is None or cloud.price_list is None:
        raise InputError(f"{cluster.path}: {cluster.platform} cannot be asked from here; see its own list of machines")
    out, now, total, hourly = console(), time.time(), 0.0, 0.0
    for instance in instances:
        price, hours = _price(instance, cloud.price_list), (now - (instance.started_s or now)) / 3600
        total += (price or 0.0) * hours
        hourly += price or 0.0
        each = (
            "no price recorded"
            if price is None
            else f"{formatting.dollars(price)} an hour, {formatting.dollars(price * hours)} so far"
        )
        market = "spot, less than " if instance.spot and price else ""
        out.print(
            f"{instance.id}  {instance.machine}  {instance.state} for {formatting.duration(3600 * hours)}: {market}{each}"
        )
    machines = formatting.count(len(instances), "machine")
    out.print(
        f"{cluster.name}: {machines}, {formatting.dollars(hourly)} an hour, {formatting.dollars(total)} since their start"
    )
    out.print(f"({price_note(cloud.price_list)}; machines that have ended are on the cloud's bill only)")
    return ExitCode.SUCCEEDED


def _price(instance: Instance, cloud: str) -> float | None:
    """Return dollars an hour at the list price; a stopped machine bills its disks only."""
    machine = machine_of(cloud, instance.machine)
    if machine is None or machine.usd_per_hour is None:
        return None
    return machine.usd_per_hour if instance.state in _BILLED else 0.0
