"""Plain torch, one process: the reference for parity checks and benchmarks."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sst2_ray.training.engine.base import (
    STATE_NAMES,
    GradientNorm,
    OptimizerShard,
    Span,
    collect_gradients,
    parameter_names,
    skips,
)


class TorchEngine:
    """AdamW of plain torch, one process."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.AdamW, *, max_grad_norm: float) -> None:
        self.module, self.optimizer, self.max_grad_norm = model, optimizer, max_grad_norm
        self.groups = [list(group["params"]) for group in optimizer.param_groups]
        self.names = parameter_names(model, self.groups)
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def accumulation(self) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:  # noqa: ARG002
        loss.backward()

    def hold_gradients(self) -> None:
        self._held = [(parameter, torch.zeros_like(parameter)) for parameter in self.module.parameters()]

    def collect(self, *, first: bool) -> None:
        collect_gradients(self._held, first=first)

    def step(self, learning_rate: float) -> GradientNorm:
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        for parameter, gradient in self._held:
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit)
        self.optimizer.found_inf = skips(norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return GradientNorm(norm)

    def _spans(self) -> tuple[Span, ...]:
        """Return every parameter's place in its group's flat vector."""
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
