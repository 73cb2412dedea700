"""Machines and what they cost: the dated table machines.csv, for estimates before anything is started. Nothing is fetched.

Prices are on-demand list prices in US dollars an hour, Linux, in the region named; spot prices move and are not listed (they were
30 to 70 % of these). They were recorded from public copies of the vendors' lists; compare with the vendor's page before spending much.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Cloud = Literal["aws", "gcp", "azure"]

RECORDED = "2026-08"
"""Month the list prices were recorded."""

SOURCES: dict[Cloud, str] = {
    "aws": "https://aws.amazon.com/ec2/pricing/on-demand/ (us-west-2)",
    "gcp": "https://cloud.google.com/compute/all-pricing (us-central1)",
    "azure": "https://azure.microsoft.com/pricing/details/virtual-machines/linux/ (East US, West US 2)",
}


ZONE_USD_PER_GB: dict[Cloud, float] = {"aws": 0.02, "gcp": 0.01, "azure": 0.0}
"""List price of a gigabyte that crosses zones of one region, both ends together; recorded with the prices."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine type of a cloud."""

    cloud: str
    name: str
    cpus: int
    """Virtual CPUs."""
    memory_gib: float
    gpus: int = 0
    gpu: str = ""
    """Model of the GPUs, empty without."""
    usd_per_hour: float | None = None
    """On-demand list price; None: not recorded, then no cost is stated."""
    network_gbit_per_s: float | None = None
    """The vendor's stated maximum between machines ("up to"); None: not recorded."""

    @property
    def plan_gpu(self) -> str:
        """Value of `sst2-ray train --plan-gpu`; empty for GPUs without a data sheet. An A100 counts as the faster of the two kinds."""
        return {"A100": "A100-80G", "H100": "H100", "H200": "H200", "L4": "L4", "L40S": "L40S"}.get(self.gpu, "")

    @property
    def bf16(self) -> bool:
        """Return True for GPUs that compute in bf16 with fused attention (compute capability 8.0 and above)."""
        return self.gpus > 0 and self.gpu not in ("T4", "V100", "P100")


def _number(text: str) -> float | None:
    return float(text) if text else None


def _read(path: Path) -> dict[tuple[str, str], Machine]:
    with path.open(encoding="utf-8", newline="") as file:
        machines = [
            Machine(
                cloud=row["cloud"], name=row["machine"], cpus=int(row["vcpus"]), memory_gib=float(row["memory_gib"]),
                gpus=int(row["gpus"]), gpu=row["gpu"], usd_per_hour=_number(row["usd_per_hour"]),
                network_gbit_per_s=_number(row["network_gbit_per_s"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
    return {(machine.cloud, machine.name): machine for machine in machines}


MACHINES = _read(Path(__file__).with_name("machines.csv"))


def machine_of(cloud: str, name: str) -> Machine | None:
    """Return the machine type, None where the table does not hold it."""
    return MACHINES.get((cloud, name))


def names_of(cloud: str) -> list[str]:
    """Return every machine type of `cloud` that the table holds."""
    return [name for known, name in MACHINES if known == cloud]


def price_note(cloud: Cloud) -> str:
    """Return where and when the prices of `cloud` come from, for the line that states a cost."""
    return f"machines only, on-demand list prices recorded {RECORDED}, {SOURCES[cloud]}"
