"""The gradients of an optimizer step: forward and backward passes over its micro-batches, launched or replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from sst2_ray.modeling.dropout import seed_gpu
from sst2_ray.modeling.layout.varlen import ModelInputs
from sst2_ray.training.context import LoopContext
from sst2_ray.training.feed import Batch
from sst2_ray.training.graphs import Graphs
from sst2_ray.training.names import Phase


class StepGradients:
    """A rank's computation of gradients, which the engine sums and keeps."""

    def __init__(self, context: LoopContext, sums: Tensor) -> None:
        """Add the loss, right predictions and examples of every micro-batch to `sums`, float64 [3]."""
        self.context, self.sums = context, sums
        self.graphs = (
            Graphs(self._loss, context.engine.collect)
            if context.cuda_graphs and context.device.type == "cuda"
            else None
        )

    def compute(self, batch: Batch, global_step: int) -> None:
        """Sum the global batch's gradients over micro-batches and ranks."""
        context, timer, engine = self.context, self.context.timer, self.context.engine
        seed_gpu(context.device, seed=context.config.seed, global_step=global_step, rank=context.rank)
        # The outer, disabled autocast keeps the inner one's casts of the weights for all micro-batches of the step.
        with self._accumulation(), self._autocast(False) if context.bf16 else nullcontext():
            for number, inputs in enumerate(batch.inputs, start=1):
                with timer.phase(Phase.FORWARD):
                    graph = self.graphs.of(inputs, first=number == 1) if self.graphs is not None else None
                    loss = self._loss(*inputs) if graph is None else graph.forward(inputs)
                with timer.phase(Phase.BACKWARD):
                    if graph is None:
                        engine.backward(loss, is_last=number == len(batch.inputs))
                        engine.collect(first=number == 1)
                    else:
                        graph.backward()
        context.dropout_keys.set(None)

    def _loss(self, inputs: ModelInputs, labels: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
        """Compute this micro-batch's part of the global batch's loss."""
        self.context.dropout_keys.set(keys)
        with self._autocast(self.context.bf16):
            logits = self.context.model(*inputs)  # [rows, classes]
        losses = self.context.objective.row_losses(logits.float(), labels)  # [rows]
        with torch.no_grad():
            real = weights > 0
            right = (logits.argmax(dim=1) == labels) & real
            self.sums += torch.stack([losses * real, right, real]).sum(dim=1, dtype=torch.float64)
        return (losses * weights).sum()

    @contextmanager
    def _accumulation(self) -> Iterator[None]:
        """Accumulate inside; the exchange between ranks at the end counts as communication."""
        accumulation = self.context.engine.accumulation()
        accumulation.__enter__()
        yield
        with self.context.timer.phase(Phase.COMMUNICATION):
            accumulation.__exit__(None, None, None)

    def _autocast(self, enabled: bool) -> AbstractContextManager[object]:
        return torch.autocast(self.context.device.type, dtype=torch.bfloat16, enabled=enabled)
