"""The protocol of engines, which take optimizer steps: DeepSpeed ZeRO-2 (zero.py) or plain torch (torch.py).

Parameters and gradients are fp32; bf16 is autocast inside the model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

STATE_NAMES = ("exp_avg", "exp_avg_sq")


class NonFiniteError(RuntimeError):
    """Gradient norm that is NaN or infinite; it is all-reduced, so all ranks raise it."""


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

    def step(self, learning_rate: float) -> float:
        """Clip, update and clear the gradients; returns the global L2 norm before clipping. Raises NonFiniteError."""

    def optimizer_shard(self) -> OptimizerShard:
        """Return references into live state, valid until the next step."""

    def load_optimizer_shard(self, shard: OptimizerShard) -> None:
        """Take over state that was cut for this engine's own `starts` and `spans` (Checkpoint.optimizer_shard)."""


def parameter_names(model: nn.Module, optimizer_groups: list[list[nn.Parameter]]) -> list[list[str]]:
    """Return the names of each group's parameters, in the order of the groups."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group] for group in optimizer_groups]
