"""Checkpoints of a made-up model at any world size, in which every element of the optimizer's state tells its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.snapshot import Snapshot
from sst2_ray.training.checkpoint.writer import CheckpointWriter
from sst2_ray.training.engine.base import STATE_NAMES, OptimizerShard, Span

GROUPS = ({"table": 21, "weight": 10}, {"bias": 3, "scale": 5})
"""Elements of every parameter, by optimizer group."""


def model_of(value: float) -> nn.Module:
    """Make parameters of GROUPS' sizes, all `value`."""
    model = nn.Module()
    for group in GROUPS:
        for name, numel in group.items():
            model.register_parameter(name, nn.Parameter(torch.full((numel,), value)))
    return model


def moments(name: str, state: str) -> torch.Tensor:
    """Return the state of one parameter: no two elements of any two parameters are equal."""
    number = 10 * list({**GROUPS[0], **GROUPS[1]}).index(name) + STATE_NAMES.index(state)
    return number * 1000 + torch.arange({**GROUPS[0], **GROUPS[1]}[name], dtype=torch.float32)


def shard_of(rank: int, world_size: int, *, step: float = 0.0, empty: bool = False) -> OptimizerShard:
    """Return what an engine of that world would hold. Like ZeRO's, vectors are padded to a multiple of the world size, and
    their order of parameters is the engine's own: here it depends on the world size. `empty`: zeros, to be filled."""
    tensors, starts, spans = {}, [], []
    for index, group in enumerate(GROUPS):
        names = list(group) if world_size % 2 else list(reversed(group))
        offset = 0
        for name in names:
            spans.append(Span(name=name, group=index, offset=offset, numel=group[name]))
            offset += group[name]
        numel = -(-offset // (2 * world_size)) * 2
        starts.append(rank * numel)
        for state in STATE_NAMES:
            flat = torch.zeros(numel * world_size)
            if not empty:
                flat[:offset] = torch.cat([moments(name, state) for name in names])
            tensors[f"{index}.{state}"] = flat[rank * numel : (rank + 1) * numel]
    return OptimizerShard(tensors=tensors, starts=tuple(starts), spans=tuple(spans), step=step)


def snapshot_of(rank: int, world_size: int, step: int, **state: object) -> Snapshot:
    """Take a snapshot whose weights are `step` everywhere, the rank's running sums (rank + 1, 0, 1)."""
    return Snapshot.take(
        global_step=step,
        model=model_of(float(step)) if rank == 0 else None,
        shard=shard_of(rank, world_size, step=float(step)),
        sums=torch.tensor([rank + 1.0, 0.0, 1.0], dtype=torch.float64),
        state={"config_hash": "0123", "records": [], **state},
    )


def write_checkpoint(
    run: Storage, step: int, *, world_size: int = 1, on_commit: Callable[[Snapshot], None] | None = None
) -> None:
    """Write the checkpoint of all ranks; rank 0 commits, so it comes last."""
    for rank in reversed(range(world_size)):
        writer = CheckpointWriter(run, rank=rank, world_size=world_size, on_commit=on_commit if rank == 0 else None)
        writer.save(snapshot_of(rank, world_size, step))
        writer.wait()
