"""The choice of bf16 for matrix products."""

from __future__ import annotations

from pathlib import Path

import torch


def use_bf16(precision: str, device: torch.device) -> bool:
    """Resolve `precision`: fp32, bf16, or auto, which is bf16 where the chip computes in it."""
    return precision == "bf16" or (precision == "auto" and bf16_is_native(device))


def bf16_is_native(device: torch.device) -> bool:
    """Tell whether the chip computes in bf16: compute capability 8, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
