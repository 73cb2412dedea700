"""A copy of one rank's state in host memory, so that training continues while it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sst2_ray.training.engine.base import OptimizerShard

JsonObject = dict[str, Any]
"""Part of a manifest."""


class HostCopies:
    """Host buffers by name, reused for every copy of that name.

    Fresh memory is faulted in page by page, which takes longer than the copy, and the workers' allocator does not find
    it again once freed: a process grew by one copy a checkpoint.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def copy(self, name: str, tensor: Tensor) -> Tensor:
        """Copy `tensor` into the buffer of `name`; the result is valid until the next copy of that name."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = self._kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return kept.copy_(tensor.detach())


def _random_states() -> dict[str, Tensor]:
    """Copy the states of this process's generators: dropout is keyed, but FlashAttention draws its own."""
    cuda = {"rng.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"rng.cpu": torch.get_rng_state(), **cuda}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Weights, the rank's shard, its running sums and random states, and their part of the manifest."""

    global_step: int
    model: dict[str, Tensor] | None
    """Weights, on rank 0; None elsewhere."""
    shard: dict[str, Tensor]
    layout: JsonObject
    state: JsonObject

    @classmethod
    def take(
        cls,
        *,
        global_step: int,
        model: torch.nn.Module | None,
        shard: OptimizerShard,
        sums: Tensor,
        state: JsonObject,
        copies: HostCopies | None = None,
    ) -> Snapshot:
        """Copy the state of this rank.

        Args:
            model: On rank 0; None elsewhere.
            sums: This rank's running training sums, which are saved with its shard.
            copies: Buffers to reuse, of a snapshot that is no longer needed; None: new ones.
        """
        copies = copies or HostCopies()
        tensors = {name: copies.copy(f"optimizer.{name}", t) for name, t in shard.tensors.items()}
        tensors["train_sums"] = copies.copy("train_sums", sums)
        tensors |= {name: state.clone() for name, state in _random_states().items()}
        layout = {"starts": shard.starts, "spans": [asdict(s) for s in shard.spans], "step": shard.step}
        weights = (
            {n: copies.copy(f"model.{n}", t) for n, t in model.state_dict().items()} if model is not None else None
        )
        return cls(global_step=global_step, model=weights, shard=tensors, layout=layout, state=state)
