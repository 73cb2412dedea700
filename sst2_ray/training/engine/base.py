"""The protocol of engines, which take optimizer steps: DeepSpeed ZeRO-2 (zero.py) or plain torch (torch.py).

Parameters and gradients are fp32; bf16 is autocast inside the model.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

STATE_NAMES = ("exp_avg", "exp_avg_sq")

_READ_AT_ONCE = "cpu"
"""Kind of device whose norm the host has at hand: nothing computes on while it looks."""


class NonFiniteError(RuntimeError):
    """Gradient norm that is NaN or infinite; it is all-reduced, so all ranks raise it at the same step."""


class GradientNorm:
    """Global L2 norm of a step's gradients before clipping, on its way from the device to the host.

    A step that waited for its own norm would leave the GPU without work while Python prepares the next one. The copy is
    therefore only started here; it is read a step later, when the GPU has long passed it.
    """

    def __init__(self, norm: Tensor) -> None:
        """Start to copy `norm`, a float64 scalar that nothing writes to any more."""
        self._host = norm.detach()
        self._copied: torch.cuda.Event | None = None
        if norm.is_cuda:
            self._host = torch.empty((), dtype=norm.dtype, pin_memory=True).copy_(norm, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> float:
        """Return the norm, after waiting for its step. Raises NonFiniteError."""
        if self._copied is not None:
            self._copied.synchronize()
        norm = float(self._host.numpy())
        if not math.isfinite(norm):
            raise NonFiniteError(f"gradient norm {norm}")
        return norm


@dataclass(frozen=True, kw_only=True)
class Span:
    """Place of a parameter in its optimizer group's flat vector."""

    name: str
    group: int
    offset: int
    numel: int


@dataclass(frozen=True, kw_only=True)
class OptimizerShard:
    """A rank's part of AdamW's state.

    `tensors` holds `<group>.exp_avg` and `<group>.exp_avg_sq`, flat fp32, elements [starts[group], starts[group] + numel)
    of the group's vector; `spans` says where each parameter lies in it. The parameters are fp32 and their own masters.
    """

    tensors: dict[str, Tensor]
    starts: tuple[int, ...]
    spans: tuple[Span, ...]
    step: float


class TrainEngine(Protocol):
    """Taker of optimizer steps; one is `with accumulation(): backward(loss) ...`, then `step(lr)`."""

    module: nn.Module

    def accumulation(self) -> AbstractContextManager[object]:
        """Sum the gradients of the backward passes inside; ranks exchange them once, on leaving."""

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:
        """Add the gradients of `loss`, this rank's part of the global batch's mean.

        `is_last`: the last one of the step, so that gradients may be sent while it goes on.
        """

    def hold_gradients(self) -> None:
        """Sum gradients in memory that stays in its place, as replayed graphs need it; call it once, before the first step."""

    def collect(self, *, first: bool) -> None:
        """Move the gradients of a backward pass to the memory that is held; without any, leave them where they are.

        Those of the `first` backward pass of a step replace what is there, the others are added.
        """

    def step(self, learning_rate: float) -> GradientNorm:
        """Clip, update and clear the gradients without waiting for the device; returns their norm.

        Where the norm is not finite, weights and optimizer state stay as they were, and reading the norm raises.
        """

    def optimizer_shard(self) -> OptimizerShard:
        """Return references into live state, valid until the next step."""

    def load_optimizer_shard(self, shard: OptimizerShard) -> None:
        """Take over state that was cut for this engine's own `starts` and `spans` (Checkpoint.optimizer_shard)."""


def clip_scale(norm: Tensor, limit: float) -> Tensor | None:
    """Return what fused AdamW divides gradients by, a float32 scalar; None: it need not write them back.

    A GPU is not asked whether it clips, and divides by 1.0 where it does not. `limit` 0: gradients are never clipped.
    """
    if limit <= 0 or (norm.device.type == _READ_AT_ONCE and norm.numpy() <= limit):
        return None
    return (norm / limit).clamp_(min=1.0).to(torch.float32)


def skips(norm: Tensor) -> Tensor:
    """Return, for fused AdamW's `found_inf`, 1.0 on the device where `norm` is not finite: the update is left out."""
    return norm.isfinite().logical_not_().to(torch.float32)


def parameter_names(model: nn.Module, optimizer_groups: list[list[nn.Parameter]]) -> list[list[str]]:
    """Return the names of each group's parameters, in the order of the groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group] for group in optimizer_groups]


def collect_gradients(held: list[tuple[nn.Parameter, Tensor]], *, first: bool) -> None:
    """Do what TrainEngine.collect says with each parameter and its memory, which is zero before the first call.

    That is a few launches for all gradients; autograd, given the memory, would launch one a parameter.
    """
    reached = [(place, parameter.grad) for parameter, place in held if parameter.grad is not None]
    missed = [place for parameter, place in held if parameter.grad is None]
    if first and missed:
        torch._foreach_zero_(missed)
    if reached:
        (torch._foreach_copy_ if first else torch._foreach_add_)(*map(list, zip(*reached, strict=True)))
    for parameter, _ in held:
        parameter.grad = None
