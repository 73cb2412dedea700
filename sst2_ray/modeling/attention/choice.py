"""The choice of a model's attention implementation, with the reason."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping

import torch

from sst2_ray.errors import InputError

FLASH = "flash_attention_2"
"""FlashAttention of the package flash-attn, behind transformers' interface."""

VARLEN = "varlen"
"""FlashAttention that is in torch, over sentences laid end to end (attention/varlen.py)."""

_INSTALL = "pip install --no-build-isolation -e '.[flash]'"


def choose_attention(
    requested: str, device: torch.device, *, half_precision: bool = True, supported: frozenset[str] | None = None
) -> tuple[str, str]:
    """Choose the implementation for `requested` ("auto" or a name) on `device`; returns it and the reason.

    auto, on a GPU of compute capability 8.0 or more: varlen for architectures that can be computed without padding,
    else flash_attention_2 where the package is installed; everywhere else sdpa. An implementation asked for by name is
    used or refused (InputError with the remedy), never replaced. `supported`: implementations that the architecture has;
    None: all.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    problems = {VARLEN: _varlen_problem, FLASH: _flash_attn_problem}
    return _choose(requested, capability, half_precision, supported, problems)


def _choose(
    requested: str,
    capability: tuple[int, int] | None,
    half_precision: bool,
    supported: frozenset[str] | None,
    problems: Mapping[str, Callable[[], str | None]],
) -> tuple[str, str]:
    """Choose by facts alone, which tests give for GPUs that are not there."""
    if requested not in ("auto", *problems):
        if supported is not None and requested not in supported:
            raise InputError(f"--attention {requested}: this architecture has only {', '.join(sorted(supported))}")
        return requested, "asked for"
    obstacles = []
    for name in problems if requested == "auto" else (requested,):
        obstacle = _obstacle(name, capability, half_precision, supported, problems[name])
        if obstacle is None:
            return name, "asked for" if requested == name else _WHY[name]
        obstacles.append(obstacle)
    if requested != "auto":
        raise InputError(f"--attention {requested}: {obstacles[0]}")
    if supported is not None and "sdpa" not in supported:
        return "eager", "this architecture has no other"
    return "sdpa", "; ".join(dict.fromkeys(obstacles))


_WHY = {VARLEN: "the GPU and torch allow it", FLASH: "the GPU and the flash-attn package allow it"}


def _obstacle(
    name: str,
    capability: tuple[int, int] | None,
    half_precision: bool,
    supported: frozenset[str] | None,
    problem: Callable[[], str | None],
) -> str | None:
    """Say why FlashAttention `name` cannot be used, with the remedy; None: it can."""
    if capability is None:
        return "flash attention needs an NVIDIA GPU, and the model is on the CPU"
    if supported is not None and name not in supported:
        return f"this architecture does not implement {name}"
    if capability < (8, 0):
        return f"flash attention needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    if not half_precision:
        return "flash attention computes in 16 bits only; use --precision bf16"
    return problem()


def _varlen_problem() -> str | None:
    """Say why torch's own FlashAttention cannot be used; None: it can."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no FlashAttention over variable lengths; install torch 2.10 or newer"
    if not torch.backends.cuda.is_flash_attention_available():
        return f"torch {torch.__version__} was built without FlashAttention; install the wheel of pytorch.org"
    return None


def _flash_attn_problem() -> str | None:
    """Say why the flash-attn package cannot be imported; None: it can."""
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return f"the package flash-attn is not installed: {_INSTALL}"
    except OSError as error:  # built for another torch or CUDA: its library does not load
        return f"the package flash-attn does not load ({str(error).splitlines()[0][:120]}): {_INSTALL}"
    return None
