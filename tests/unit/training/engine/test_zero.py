"""DeepSpeed ZeRO-2 takes the steps that plain torch takes, for any number of ranks: weights, norm, clipping, and a stop."""

from __future__ import annotations

import math
import os
import socket
import sys

import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.training.engine import overlap, zero
from sst2_ray.training.engine.base import NonFiniteError, TrainEngine
from sst2_ray.training.engine.build import build_engine

CONFIG = TrainConfig(learning_rate=1e-2, weight_decay=0.1)
ROWS = 12


class Net(torch.nn.Module):
    """41,025 parameters that decay and 5 that do not: neither is shared out evenly to 2 or 3.

    Two of them are tables with sparse gradients: one is looked up only, by rows whose id is not negative, the other is
    looked up and multiplied, which makes its gradient dense after all.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first, self.second = torch.nn.Linear(5, 5), torch.nn.Linear(5, 2, bias=False)
        self.table, self.tied = torch.nn.Embedding(4099, 5), torch.nn.Embedding(4099, 5)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if (found := ids[ids >= 0]).numel():
            x = x + self.table(found).mean(0) + self.tied(found).mean(0)
        return self.second(torch.tanh(self.first(x))) + (x @ self.tied.weight.T).mean(1, keepdim=True)


def _trained(
    kind: str, rank: int, world_size: int, *, overlap_comm: bool, hold: bool = False
) -> tuple[torch.Tensor, list[float]]:
    """Weights and norms after 6 steps, a micro-batch a row, clipped from the third on."""
    model = Net()
    engine = build_engine(
        kind,
        model,
        build_optimizer(model, CONFIG),
        max_grad_norm=0.3,
        device=torch.device("cpu"),
        overlap_comm=overlap_comm,
    )
    if hold:
        engine.hold_gradients()
    norms = []
    for step in range(6):
        chance = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, 5, generator=chance) * (0.1 if step < 2 else 3.0)
        # Of all ranks' shards, the ends of the table and a row that two of two ranks hold a part of.
        ids = torch.tensor([0, 1363, 1364, 2727, 2728, 4095, 4098])[torch.randint(7, (ROWS, 1), generator=chance)]
        if step == 3:  # only one rank looks something up
            ids[1:] = -1
        if step == 4:  # more lookups than the table has rows
            ids = ids.repeat(1, 4100)
        with engine.accumulation():
            for row in range(rank, ROWS, world_size):
                loss = engine.module(x[row : row + 1], ids[row : row + 1]).square().sum() / ROWS
                engine.backward(loss, is_last=row + world_size >= ROWS)
                engine.collect(first=row == rank)
                assert not hold or engine.module.first.weight.grad is None
            if overlap_comm:
                assert engine._overlapped._works, "nothing left while the backward pass went on"
        norms.append(engine.step(1e-2).read())
    _stops_on_an_infinite_gradient(engine, rank)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), norms


def _stops_on_an_infinite_gradient(engine: TrainEngine, rank: int) -> None:
    """On one rank only: all ranks raise, and no weight moves."""
    before = [p.detach().clone() for p in engine.module.parameters()]
    with engine.accumulation():
        engine.backward(engine.module(torch.ones(1, 5), torch.ones(1).long()).sum() * (math.inf if rank == 0 else 1.0))
        engine.collect(first=True)
    norm = engine.step(1e-2)
    with pytest.raises(NonFiniteError):
        norm.read()
    assert all(torch.equal(a, b) for a, b in zip(before, engine.module.parameters(), strict=True))


def _rank(rank: int, world_size: int, port: int, folder: str, overlap_comm: bool, hold: bool) -> None:
    if hold:  # as on a GPU, where no table's gradient is sparse
        zero._TABLE_ROWS = sys.maxsize
    torch.set_num_threads(1)
    # Parameters in several buckets, buckets of several parameters, and a group whose shares are too small.
    overlap.LEAST_OVERLAPPED_SHARE, overlap._BUCKET = 10, 5000
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world_size))  # what DeepSpeed asks for
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    torch.save(_trained("zero2", rank, world_size, overlap_comm=overlap_comm, hold=hold), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that ends in the usual way


@pytest.mark.parametrize(
    ("world_size", "overlap_comm", "hold"),
    [
        (1, False, False), (2, False, False), (3, False, False), (2, True, False), (3, True, False), (1, False, True),
        (2, False, True),
    ],
)  # fmt: skip
def test_zero_2_is_plain_adamw(world_size, overlap_comm, hold, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _rank, args=(world_size, port, str(tmp_path), overlap_comm, hold), nprocs=world_size, start_method="spawn"
    )
    weights, norms = _trained("torch", 0, 1, overlap_comm=False, hold=hold)
    for rank in range(world_size):
        found, its_norms = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
        assert its_norms == pytest.approx(norms, rel=1e-5)
