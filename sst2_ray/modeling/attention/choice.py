"""The choice of a model's attention implementation, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sst2_ray.errors import InputError

FLASH = "flash_attention_2"
_INSTALL = "pip install --no-build-isolation -e '.[flash]'"


def choose_attention(
    requested: str, device: torch.device, *, half_precision: bool = True, supported: frozenset[str] | None = None
) -> tuple[str, str]:
    """Choose the implementation for `requested` ("auto" or a name) on `device`; returns it and the reason.

    auto: flash_attention_2 where the GPU (compute capability 8.0 or more) and the flash-attn package allow it, else
    sdpa. An implementation asked for by name is used or refused (InputError with the remedy), never replaced.
    `supported`: implementations that the architecture has; None: all.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return _choose(requested, capability, half_precision, supported, _flash_attn_problem)


def _choose(
    requested: str,
    capability: tuple[int, int] | None,
    half_precision: bool,
    supported: frozenset[str] | None,
    problem: Callable[[], str | None],
) -> tuple[str, str]:
    """Choose by facts alone, which tests give for GPUs that are not there."""
    if requested not in ("auto", FLASH):
        if supported is not None and requested not in supported:
            raise InputError(f"--attention {requested}: this architecture has only {', '.join(sorted(supported))}")
        return requested, "asked for"
    obstacle = _flash_obstacle(capability, half_precision, supported, problem)
    if obstacle is None:
        return FLASH, "asked for" if requested == FLASH else "the GPU and the flash-attn package allow it"
    if requested == FLASH:
        raise InputError(f"--attention {FLASH}: {obstacle}")
    if supported is not None and "sdpa" not in supported:
        return "eager", "this architecture has no other"
    return "sdpa", obstacle


def _flash_obstacle(
    capability: tuple[int, int] | None,
    half_precision: bool,
    supported: frozenset[str] | None,
    problem: Callable[[], str | None],
) -> str | None:
    """Say why flash attention cannot be used, with the remedy; None: it can."""
    if capability is None:
        return "flash attention needs an NVIDIA GPU, and the model is on the CPU"
    if supported is not None and FLASH not in supported:
        return "this architecture does not implement flash attention"
    if capability < (8, 0):
        return f"flash attention needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    if not half_precision:
        return "flash attention computes in 16 bits only; use --precision bf16"
    return problem()


def _flash_attn_problem() -> str | None:
    """Say why the flash-attn package cannot be imported; None: it can."""
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return f"the package flash-attn is not installed: {_INSTALL}"
    except OSError as error:  # built for another torch or CUDA: its library does not load
        return f"the package flash-attn does not load ({str(error).splitlines()[0][:120]}): {_INSTALL}"
    return None
