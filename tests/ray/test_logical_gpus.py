"""GPUs without GPUs: a Ray that was told it has two gives one to each worker, and what they cannot hold is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sst2_ray.errors import InfeasibleError, RunFailedError
from tests.support.runs import Runs, started_ray

pytestmark = pytest.mark.usefixtures("two_gpus")


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs: see tests/gpu")
    yield from started_ray(num_cpus=2, num_gpus=2)


def test_there_is_a_worker_a_gpu_with_one_of_its_own_and_torch_that_cannot_use_it_says_so(runs: Runs) -> None:
    with pytest.raises(RunFailedError) as caught:
        runs.train("gpus", num_workers=None, cpus_per_worker=None)
    message = str(caught.value)
    assert "torch cannot compute on the GPUs of 2 workers: rank 0: GPU " in message
    held = {message.partition(f"rank {rank}: GPU ")[2].split()[0] for rank in (0, 1)}
    assert held == {"0", "1"}
    assert "install a CUDA build of torch" in message
    # Another attempt would find the same torch: there is none.
    [row] = [row for row in runs.rows("trials", "gpus") if row["status"] != "running"]
    assert (row["status"], row["attempt"], row["world_size"]) == ("failed", 0, 2)


def test_more_workers_than_gpus_are_refused_with_the_arithmetic(runs: Runs) -> None:
    expected = "num_workers=3: 3 workers of 1 CPU and 1 GPU are asked for, room for 2 is all there can be"
    with pytest.raises(InfeasibleError, match=expected):
        runs.train("three", num_workers=3, cpus_per_worker=None)
    assert InfeasibleError.exit_code == 3
    assert not (runs.folder / "runs" / "three").exists()
