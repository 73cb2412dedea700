"""Reduction of gradients to the ranks that own them while the backward pass still computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sst2_ray.training.task import LEAST_OVERLAPPED_SHARE

_BUCKET = 2**23
"""Elements of a message, 32 MiB: 3 messages for MiniLM, 48 for ModernBERT-large. Larger ones leave more to wait for after
the backward pass, smaller ones cost more starts."""


@dataclass
class _Bucket:
    """Consecutive gradients that are sent as one message."""

    piece: Tensor
    """View of a group's flat gradients."""
    owner: int
    parameters: frozenset[nn.Parameter]
    """Parameters with gradients in it."""
    missing: set[nn.Parameter]
    """Parameters whose gradient of this step has not arrived."""


class OverlappedSums:
    """Sums of gradients over all ranks in their owners' shards of the flat vectors, made during the last backward pass.

    Buckets are sent in the same order on every rank, the flat vectors' ends first, where backward passes begin; a bucket
    that is complete early waits for those before it.
    """

    def __init__(self, groups: list[tuple[Tensor, list[tuple[nn.Parameter, int]]]]) -> None:
        """Cut the groups into buckets and hook their parameters.

        `groups`: for each optimizer group the flat gradients (equal shards in the order of ranks) and its parameters with
        their offsets.
        """
        self._buckets: list[_Bucket] = []
        self._place: dict[nn.Parameter, Tensor] = {}
        for flat, group in groups:
            self._place |= {parameter: flat.narrow(0, first, parameter.numel()) for parameter, first in group}
            for start, end, owner in _cuts(flat.numel()):
                inside = frozenset(p for p, first in group if first < end and first + p.numel() > start)
                self._buckets.append(_Bucket(flat[start:end], owner, inside, set(inside)))
        self._of = {parameter: [b for b in self._buckets if parameter in b.parameters] for parameter in self._place}
        self._is_last, self._next = False, 0
        self._works: list[torch.distributed.Work] = []
        for parameter in self._place:
            parameter.register_post_accumulate_grad_hook(self._accumulated)

    def last_backward(self) -> None:
        """Declare the backward pass that follows the last one of this step: gradients are complete as they come."""
        self._is_last = True

    def _accumulated(self, parameter: nn.Parameter) -> None:
        if self._is_last:
            self._fill(parameter)

    def _fill(self, parameter: nn.Parameter) -> None:
        """Move a gradient into the flat vector and send the buckets that are complete, in order."""
        place, gradient = self._place[parameter], parameter.grad
        if gradient is None:  # nothing of this batch reached it
            place.zero_()
        else:
            place.copy_(gradient.view(-1))
        parameter.grad = None
        for bucket in self._of[parameter]:
            bucket.missing.remove(parameter)
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            bucket = self._buckets[self._next]
            self._works.append(torch.distributed.reduce(bucket.piece, bucket.owner, async_op=True))
            self._next += 1

    def finish(self) -> None:
        """Fill and send what the last backward pass left, and wait for all of it."""
        for bucket in self._buckets:
            for parameter in list(bucket.missing):
                self._fill(parameter)
        for work in self._works:
            work.wait()
        self._is_last, self._next, self._works = False, 0, []
        for bucket in self._buckets:
            bucket.missing = set(bucket.parameters)


def pays(flat: Tensor) -> bool:
    """Tell whether the ranks' shares are large enough for overlap to be faster."""
    return flat.numel() >= torch.distributed.get_world_size() * LEAST_OVERLAPPED_SHARE


def _cuts(numel: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and owner of the buckets of a flat vector of `numel`, the last one first."""
    world_size = torch.distributed.get_world_size()
    share = numel // world_size
    for owner in reversed(range(world_size)):
        for start in reversed(range(0, share, _BUCKET)):
            yield owner * share + start, owner * share + min(start + _BUCKET, share), owner
