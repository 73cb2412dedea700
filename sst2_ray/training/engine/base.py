"""The optimizer step behind a small protocol: DeepSpeed ZeRO-2, or plain torch for parity checks and benchmarks.

Parameters and gradients are fp32; bf16 is autocast inside the model. ZeRO-2 itself: zero.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

STATE_NAMES = ("exp_avg", "exp_avg_sq")


class NonFiniteError(RuntimeError):
    """The gradient's norm is not a finite number on any rank: it is all-reduced."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A parameter's place in its optimizer group's flat vector."""

    name: str
    group: int
    offset: int
    numel: int


@dataclass(frozen=True, kw_only=True)
class OptimizerShard:
    """This rank's part of AdamW's state.

    `tensors` holds `<group>.exp_avg` and `<group>.exp_avg_sq`, flat fp32, elements [starts[group], starts[group] + numel)
    of the group's vector; `spans` says where each parameter lies in it. Masters are the parameters themselves: both are
    fp32.
    """

    tensors: dict[str, Tensor]
    starts: tuple[int, ...]
    spans: tuple[Span, ...]
    step: float


class TrainEngine(Protocol):
    """One optimizer step is: `with accumulation(): backward(loss) ...`, then `step(lr)`."""

    module: nn.Module

    def accumulation(self) -> AbstractContextManager[object]:
        """Gradients of the backward passes inside are summed; ranks exchange them once, on leaving."""

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:
        """`loss`: this rank's part of the global batch's mean; parts are summed over micro-batches and ranks. `is_last`: of
        the step; gradients may then travel while it goes on."""

    def step(self, learning_rate: float) -> float:
        """Clip, update, clear the gradients; returns the global L2 norm before clipping. Raises NonFiniteError."""

    def optimizer_shard(self) -> OptimizerShard:
        """References into live state, valid until the next step."""

    def load_optimizer_shard(self, shard: OptimizerShard) -> None:
        """Takes over state with this engine's own `starts` and `spans` (see checkpoint.reshard)."""


def parameter_names(model: nn.Module, optimizer_groups: list[list[nn.Parameter]]) -> list[list[str]]:
    """Of each group's parameters, in the order of the groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group] for group in optimizer_groups]
