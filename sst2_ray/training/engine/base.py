"""The optimizer step behind a small protocol: DeepSpeed ZeRO-2, or plain torch for parity checks and benchmarks.

Parameters and gradients are fp32; bf16 is autocast inside the model. ZeRO-2 itself: zero.py.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
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


class TorchEngine:
    """Plain torch, one process."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.AdamW, *, max_grad_norm: float) -> None:
        self.module, self.optimizer, self.max_grad_norm = model, optimizer, max_grad_norm
        self.groups = [list(group["params"]) for group in optimizer.param_groups]
        self.names = parameter_names(model, self.groups)

    def accumulation(self) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:  # noqa: ARG002
        loss.backward()

    def step(self, learning_rate: float) -> float:
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise NonFiniteError(f"gradient norm {norm}")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _spans(self) -> tuple[Span, ...]:
        spans = []
        for index, (names, group) in enumerate(zip(self.names, self.groups, strict=True)):
            offset = 0
            for name, parameter in zip(names, group, strict=True):
                spans.append(Span(name=name, group=index, offset=offset, numel=parameter.numel()))
                offset += parameter.numel()
        return tuple(spans)

    def optimizer_shard(self) -> OptimizerShard:
        state = self.optimizer.state
        tensors, step = {}, 0.0
        for index, group in enumerate(self.groups):
            for name in STATE_NAMES:
                parts = [(state[p][name] if p in state else torch.zeros_like(p)).reshape(-1) for p in group]
                tensors[f"{index}.{name}"] = torch.cat(parts)
            step = float(state[group[0]]["step"]) if group[0] in state else 0.0
        return OptimizerShard(tensors=tensors, starts=(0,) * len(self.groups), spans=self._spans(), step=step)

    def load_optimizer_shard(self, shard: OptimizerShard) -> None:
        for index, group in enumerate(self.groups):
            offset = 0
            for p in group:
                piece = {
                    name: shard.tensors[f"{index}.{name}"][offset : offset + p.numel()].view_as(p).clone().to(p.device)
                    for name in STATE_NAMES
                }
                self.optimizer.state[p] = {"step": torch.tensor(shard.step, device=p.device), **piece}
                offset += p.numel()


def build_engine(
    kind: str,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    *,
    max_grad_norm: float,
    device: torch.device,
    overlap_comm: bool = False,
) -> TrainEngine:
    """`kind` as in TrainConfig.engine; `model` already on `device`. `overlap_comm`: ZeRO-2's gradients travel while the
    backward pass goes on."""
    if kind == "torch":
        return TorchEngine(model, optimizer, max_grad_norm=max_grad_norm)
    from sst2_ray.training.engine.zero import ZeroEngine

    return ZeroEngine(model, optimizer, max_grad_norm=max_grad_norm, device=device, overlap_comm=overlap_comm)
