"""One rank's state at one step, copied to the host, so that training can go on while it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sst2_ray.training.engine.base import OptimizerShard


class HostCopies:
    """Copies of tensors on the host, by name, in memory that is kept: the next copy of a name is made in its place.

    Memory that is allocated anew is faulted in page by page, which takes longer than the copy; and the workers' allocator
    does not find it again once it was freed: a process grew by a copy a checkpoint.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def of(self, name: str, tensor: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = self._kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return kept.copy_(tensor.detach())


def _random_states() -> dict[str, Tensor]:
    """Of this process's generators: dropout is keyed, but FlashAttention draws its own."""
    cuda = {"rng.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"rng.cpu": torch.get_rng_state(), **cuda}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Weights, the rank's shard, its running sums and random states, and what the manifest says of them."""

    global_step: int
    model: dict[str, Tensor] | None  # rank 0 alone
    shard: dict[str, Tensor]
    layout: dict[str, Any]
    state: dict[str, Any]

    @classmethod
    def take(
        cls,
        *,
        global_step: int,
        model: torch.nn.Module | None,
        shard: OptimizerShard,
        sums: Tensor,
        state: dict[str, Any],
        copies: HostCopies | None = None,
    ) -> Snapshot:
        """`sums`: this rank's running training sums; they travel with its shard. `model` on rank 0, None elsewhere.
        `copies`: of an earlier snapshot, which nobody needs any more; None: in memory of its own."""
        copies = copies or HostCopies()
        tensors = {name: copies.of(f"optimizer.{name}", t) for name, t in shard.tensors.items()}
        tensors["train_sums"] = copies.of("train_sums", sums)
        tensors |= {name: state.clone() for name, state in _random_states().items()}
        layout = {"starts": shard.starts, "spans": [asdict(s) for s in shard.spans], "step": shard.step}
        weights = {n: copies.of(f"model.{n}", t) for n, t in model.state_dict().items()} if model is not None else None
        return cls(global_step=global_step, model=weights, shard=tensors, layout=layout, state=state)
