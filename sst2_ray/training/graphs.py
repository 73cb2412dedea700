"""CUDA graphs of micro-batches: the kernels of a forward and a backward pass, captured once and launched together ever after.

A step of a few hundred tokens is thousands of kernels that take a GPU less time than the host needs to launch them. A graph
replays one size alone: batches are filled up to few sizes (layout.varlen.Bucket), and every other way, the first batch of a size
included, computes the same filled batch. What a replay reads and writes lies where it lay when it was captured: inputs are
copied in, and gradients end in the engine's memory (TrainEngine.hold_gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from sst2_ray.modeling.layout.varlen import ModelInputs, Varlen

_MOST_GRAPHS = 64
"""Sizes that are captured; micro-batches of any further one are launched kernel by kernel."""

Collect = Callable[..., None]

MicroBatchInputs = tuple[ModelInputs, Tensor, Tensor, Tensor]
"""Arguments of the model, labels, weights, dropout keys."""


class Graphs:
    """The graphs of a worker, by size."""

    def __init__(self, loss: Callable[..., Tensor], collect: Collect) -> None:
        """`loss` computes a micro-batch's loss from its MicroBatchInputs, without ever waiting for the GPU.

        `collect` takes the gradients away after a backward pass (TrainEngine).
        """
        self._loss, self._collect = loss, collect
        self._graphs: dict[tuple[object, ...], Graph | None] = {}
        # One pool for all: replays never overlap, and none leaves anything there that another one reads.
        self._pool = torch.cuda.graph_pool_handle()

    def of(self, inputs: MicroBatchInputs, *, first: bool) -> Graph | None:
        """Return the graph of these inputs' size, captured when it occurs a second time; None: launch its kernels.

        `first`: of a step's micro-batches; those that follow add their gradients.

        The first time, libraries choose and load kernels for it, which they must not do during a capture.
        """
        layout = inputs[0][1]
        if not (isinstance(layout, Varlen) and layout.filled):
            return None
        size = (first, layout.longest, *(tensor.shape for tensor in _tensors(inputs)))
        if size not in self._graphs:
            if len(self._graphs) < _MOST_GRAPHS:
                self._graphs[size] = None
            return None
        found = self._graphs[size]
        if found is None:
            found = self._graphs[size] = Graph(self._loss, partial(self._collect, first=first), inputs, self._pool)
        return found


class Graph:
    """A forward and a backward pass over inputs of one size."""

    def __init__(
        self, loss: Callable[..., Tensor], collect: Callable[[], None], inputs: MicroBatchInputs, pool: tuple[int, int]
    ) -> None:
        """Capture both, with what takes the gradients away."""
        copies = _copied(inputs)
        self._inputs = _by_type(copies)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Weights that autocast has cast for earlier micro-batches of the step will not be there at a replay.
        torch.clear_autocast_cache()
        # thread_local: batches are prepared in another thread meanwhile.
        with torch.cuda.graph(self._forward, pool=pool, capture_error_mode="thread_local"):
            captured = loss(*copies)
        with torch.cuda.graph(self._backward, pool=pool, capture_error_mode="thread_local"):
            captured.backward()
            collect()
        self._loss = captured.detach()
        torch.clear_autocast_cache()

    def forward(self, inputs: MicroBatchInputs) -> Tensor:
        """Replay the forward pass on other inputs of the same size; returns their loss, until the next replay."""
        for own, given in zip(self._inputs, _by_type(inputs), strict=True):
            torch._foreach_copy_(own, given)
        self._forward.replay()
        return self._loss

    def backward(self) -> None:
        """Replay the backward pass of the forward pass that was replayed last, up to gradients in the engine's memory."""
        self._backward.replay()


def _tensors(inputs: MicroBatchInputs) -> Iterator[Tensor]:
    (ids, layout, *types), *of_rows = inputs
    assert isinstance(layout, Varlen)
    yield from (ids, layout.row, layout.position, layout.ends, layout.tiles, *types, *of_rows)


def _copied(inputs: MicroBatchInputs) -> MicroBatchInputs:
    (ids, layout, *types), labels, weights, keys = inputs
    assert isinstance(layout, Varlen)
    arguments = (ids.clone(), layout.moved(torch.clone), *(tensor.clone() for tensor in types))
    return arguments, labels.clone(), weights.clone(), keys.clone()  # type: ignore[return-value]


def _by_type(inputs: MicroBatchInputs) -> list[list[Tensor]]:
    """Return the tensors in lists of one type each: a list is copied in one launch."""
    ordered = sorted(_tensors(inputs), key=lambda tensor: str(tensor.dtype))
    return [list(group) for _, group in groupby(ordered, key=lambda tensor: tensor.dtype)]
