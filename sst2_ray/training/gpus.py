"""Peaks of GPUs from NVIDIA's data sheets. Imports nothing: plans are made where there is no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Peaks of a GPU, from its data sheet on nvidia.com."""

    peak_bf16_flops: float
    """Dense bf16 tensor-core peak in FLOP/s."""
    peak_fp32_flops: float
    """fp32 peak in FLOP/s, without tensor cores: torch's default for fp32 products."""
    memory_bytes_per_s: float
    memory_gb: int
    """Memory in 10^9 bytes."""
    link_bytes_per_s: float
    """Rate in one direction to the other GPUs of the node: half of the data sheet's NVLink figure, or PCIe's without NVLink."""


# By torch's full device name: an unknown chip, or a slice of one, gets no utilization figure.
GPUS: dict[str, Gpu] = {
    # NVIDIA A100 Tensor Core GPU data sheet: 40 GB at 1,555 GB/s; 80 GB at 2,039 (SXM) and 1,935 GB/s (PCIe); NVLink 600
    # GB/s, PCIe Gen4 64 GB/s.
    "NVIDIA A100-SXM4-40GB": Gpu(
        peak_bf16_flops=312e12,
        peak_fp32_flops=19.5e12,
        memory_bytes_per_s=1.555e12,
        memory_gb=40,
        link_bytes_per_s=300e9,
    ),
    "NVIDIA A100-SXM4-80GB": Gpu(
        peak_bf16_flops=312e12,
        peak_fp32_flops=19.5e12,
        memory_bytes_per_s=2.039e12,
        memory_gb=80,
        link_bytes_per_s=300e9,
    ),
    "NVIDIA A100-PCIE-40GB": Gpu(
        peak_bf16_flops=312e12,
        peak_fp32_flops=19.5e12,
        memory_bytes_per_s=1.555e12,
        memory_gb=40,
        link_bytes_per_s=32e9,
    ),
    "NVIDIA A100 80GB PCIe": Gpu(
        peak_bf16_flops=312e12,
        peak_fp32_flops=19.5e12,
        memory_bytes_per_s=1.935e12,
        memory_gb=80,
        link_bytes_per_s=32e9,
    ),
    # NVIDIA H100 Tensor Core GPU data sheet: PCIe 80 GB at 2 TB/s, Gen5 128 GB/s; SXM 80 GB at 3.35 TB/s, NVLink 900 GB/s.
    "NVIDIA H100 PCIe": Gpu(
        peak_bf16_flops=756e12, peak_fp32_flops=51e12, memory_bytes_per_s=2.0e12, memory_gb=80, link_bytes_per_s=64e9
    ),
    "NVIDIA H100 80GB HBM3": Gpu(
        peak_bf16_flops=989e12, peak_fp32_flops=67e12, memory_bytes_per_s=3.35e12, memory_gb=80, link_bytes_per_s=450e9
    ),
    # NVIDIA H200 Tensor Core GPU data sheet: 141 GB at 4.8 TB/s, NVLink 900 GB/s.
    "NVIDIA H200": Gpu(
        peak_bf16_flops=989e12, peak_fp32_flops=67e12, memory_bytes_per_s=4.8e12, memory_gb=141, link_bytes_per_s=450e9
    ),
    # NVIDIA L40S data sheet: 48 GB at 864 GB/s, PCIe Gen4 64 GB/s, no NVLink.
    "NVIDIA L40S": Gpu(
        peak_bf16_flops=362e12, peak_fp32_flops=91.6e12, memory_bytes_per_s=864e9, memory_gb=48, link_bytes_per_s=32e9
    ),
    # NVIDIA L4 data sheet: 24 GB at 300 GB/s, PCIe Gen4 64 GB/s, no NVLink.
    "NVIDIA L4": Gpu(
        peak_bf16_flops=121e12, peak_fp32_flops=30.3e12, memory_bytes_per_s=300e9, memory_gb=24, link_bytes_per_s=32e9
    ),
}
