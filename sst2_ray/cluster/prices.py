"""Machines and what they cost: a dated table, for estimates before anything is started. Nothing is fetched.

Prices are on-demand list prices in US dollars an hour, Linux, in the region named; spot prices move and are not listed (they were
30 to 70 % of these). They were recorded from public copies of the vendors' lists; compare with the vendor's page before spending much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Cloud = Literal["aws", "gcp", "azure"]

RECORDED = "2026-08"
"""Month the list prices below were recorded."""

SOURCES: dict[Cloud, str] = {
    "aws": "https://aws.amazon.com/ec2/pricing/on-demand/ (us-west-2)",
    "gcp": "https://cloud.google.com/compute/all-pricing (us-central1)",
    "azure": "https://azure.microsoft.com/pricing/details/virtual-machines/linux/ (East US, West US 2)",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine type of a cloud."""

    cloud: Cloud
    name: str
    cpus: int
    """Virtual CPUs."""
    memory_gib: float
    gpus: int = 0
    gpu: str = ""
    """Model of the GPUs, empty without."""
    usd_per_hour: float | None = None
    """On-demand list price; None: not recorded, then no cost is stated."""

    @property
    def bf16(self) -> bool:
        """The GPUs compute in bf16 and run FlashAttention 2 (compute capability 8.0 and above)."""
        return self.gpus > 0 and self.gpu not in ("T4", "V100", "P100")


def _rows(cloud: Cloud, gpu: str, rows: Iterable[tuple[str, int, float, int, float | None]]) -> list[Machine]:
    return [
        Machine(
            cloud=cloud, name=name, cpus=cpus, memory_gib=memory, gpus=gpus, gpu=gpu if gpus else "", usd_per_hour=price
        )
        for name, cpus, memory, gpus, price in rows
    ]


_TABLE: list[Machine] = [
    *_rows("aws", "", [
        ("t3.large", 2, 8, 0, 0.0832), ("t3.xlarge", 4, 16, 0, 0.1664), ("m5.large", 2, 8, 0, 0.096), ("m5.xlarge", 4, 16, 0, 0.192),
        ("m5.2xlarge", 8, 32, 0, 0.384), ("m6i.large", 2, 8, 0, 0.096), ("m6i.xlarge", 4, 16, 0, 0.192), ("m6i.2xlarge", 8, 32, 0, 0.384),
        ("m7i.large", 2, 8, 0, 0.1008), ("m7i.xlarge", 4, 16, 0, 0.2016), ("m7i.2xlarge", 8, 32, 0, 0.4032), ("c6i.xlarge", 4, 8, 0, 0.17),
        ("r6i.xlarge", 4, 32, 0, 0.252),
    ]),
    *_rows("aws", "T4", [("g4dn.xlarge", 4, 16, 1, 0.526), ("g4dn.2xlarge", 8, 32, 1, 0.752), ("g4dn.12xlarge", 48, 192, 4, 3.912)]),
    *_rows("aws", "A10G", [
        ("g5.xlarge", 4, 16, 1, 1.006), ("g5.2xlarge", 8, 32, 1, 1.212), ("g5.4xlarge", 16, 64, 1, 1.624),
        ("g5.12xlarge", 48, 192, 4, 5.672),
        ("g5.24xlarge", 96, 384, 4, 8.144), ("g5.48xlarge", 192, 768, 8, 16.288),
    ]),
    *_rows("aws", "L4", [
        ("g6.xlarge", 4, 16, 1, 0.8048), ("g6.2xlarge", 8, 32, 1, 0.9776), ("g6.4xlarge", 16, 64, 1, 1.3232),
        ("g6.12xlarge", 48, 192, 4, 4.6016),
        ("g6.24xlarge", 96, 384, 4, 6.6752), ("g6.48xlarge", 192, 768, 8, 13.3504),
    ]),
    *_rows("aws", "L40S", [
        ("g6e.xlarge", 4, 32, 1, 1.861), ("g6e.2xlarge", 8, 64, 1, 2.24208), ("g6e.4xlarge", 16, 128, 1, 3.00424),
        ("g6e.12xlarge", 48, 384, 4, 10.49264),
    ]),
    *_rows("aws", "V100", [("p3.2xlarge", 8, 61, 1, 3.06), ("p3.8xlarge", 32, 244, 4, 12.24), ("p3.16xlarge", 64, 488, 8, 24.48)]),
    *_rows("aws", "A100", [("p4d.24xlarge", 96, 1152, 8, 21.957642), ("p4de.24xlarge", 96, 1152, 8, None)]),
    *_rows("aws", "H100", [("p5.48xlarge", 192, 2048, 8, None), ("p5.4xlarge", 16, 256, 1, None)]),
    *_rows("aws", "H200", [("p5e.48xlarge", 192, 2048, 8, None), ("p5en.48xlarge", 192, 2048, 8, None)]),
    *_rows("gcp", "", [
        ("e2-standard-2", 2, 8, 0, 0.067), ("e2-standard-4", 4, 16, 0, 0.134), ("e2-standard-8", 8, 32, 0, 0.268),
        ("n1-standard-2", 2, 7.5, 0, 0.095), ("n1-standard-4", 4, 15, 0, 0.19), ("n1-standard-8", 8, 30, 0, 0.38),
        ("n1-standard-16", 16, 60, 0, 0.76),
        ("n2-standard-4", 4, 16, 0, 0.1942), ("n2-standard-8", 8, 32, 0, 0.3885),
    ]),
    *_rows("gcp", "L4", [
        ("g2-standard-4", 4, 16, 1, 0.71), ("g2-standard-8", 8, 32, 1, 0.85), ("g2-standard-12", 12, 48, 1, 1.0),
        ("g2-standard-16", 16, 64, 1, 1.15),
        ("g2-standard-24", 24, 96, 2, 2.0), ("g2-standard-32", 32, 128, 1, 1.73), ("g2-standard-48", 48, 192, 4, 4.0),
        ("g2-standard-96", 96, 384, 8, 8.0),
    ]),
    *_rows("gcp", "A100", [
        ("a2-highgpu-1g", 12, 85, 1, 3.67), ("a2-highgpu-2g", 24, 170, 2, 7.35), ("a2-highgpu-4g", 48, 340, 4, 14.69),
        ("a2-highgpu-8g", 96, 680, 8, 29.39), ("a2-ultragpu-1g", 12, 170, 1, None), ("a2-ultragpu-8g", 96, 1360, 8, None),
    ]),
    *_rows("gcp", "H100", [("a3-highgpu-1g", 26, 234, 1, None), ("a3-highgpu-8g", 208, 1872, 8, None)]),
    *_rows("azure", "", [
        ("Standard_D2s_v5", 2, 8, 0, 0.096), ("Standard_D4s_v5", 4, 16, 0, 0.192), ("Standard_D8s_v5", 8, 32, 0, 0.384),
        ("Standard_D4as_v5", 4, 16, 0, 0.172), ("Standard_E4s_v5", 4, 32, 0, 0.252),
    ]),
    *_rows("azure", "T4", [
        ("Standard_NC4as_T4_v3", 4, 28, 1, 0.526), ("Standard_NC8as_T4_v3", 8, 56, 1, 0.752), ("Standard_NC16as_T4_v3", 16, 110, 1, 1.204),
        ("Standard_NC64as_T4_v3", 64, 440, 4, 4.352),
    ]),
    *_rows("azure", "A10", [("Standard_NV36ads_A10_v5", 36, 440, 1, 3.2), ("Standard_NV72ads_A10_v5", 72, 880, 2, 6.52)]),
    *_rows("azure", "A100", [
        ("Standard_NC24ads_A100_v4", 24, 220, 1, 3.673), ("Standard_NC48ads_A100_v4", 48, 440, 2, 7.346),
        ("Standard_NC96ads_A100_v4", 96, 880, 4, 14.692), ("Standard_ND96asr_v4", 96, 900, 8, 27.197),
    ]),
    *_rows("azure", "H100", [("Standard_NC40ads_H100_v5", 40, 320, 1, None), ("Standard_ND96isr_H100_v5", 96, 1900, 8, None)]),
]  # fmt: skip

MACHINES: dict[tuple[str, str], Machine] = {(machine.cloud, machine.name): machine for machine in _TABLE}


def machine_of(cloud: str, name: str) -> Machine | None:
    """The machine type, where it is in the table."""
    return MACHINES.get((cloud, name))


def names_of(cloud: str) -> list[str]:
    """Every machine type of `cloud` that the table knows."""
    return [name for known, name in MACHINES if known == cloud]


def price_note(cloud: Cloud) -> str:
    """Where and when the prices of `cloud` come from, for the line that states a cost."""
    return f"machines only, on-demand list prices recorded {RECORDED}, {SOURCES[cloud]}"
