"""The launches of a step are those that benchmarks/results/launches.json states: a change that adds some is seen here."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import launches
from benchmarks.shared import REPOSITORY

STATED = json.loads((REPOSITORY / "benchmarks/results/launches.json").read_text())["counts"]


@pytest.fixture(scope="module", autouse=True)
def group_of_one():
    """ZeRO-2 asks for a process group."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("TORCHDYNAMO_DISABLE", "1")):
            patch.setenv(name, value)
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("way", ["varlen", "padded"])
@pytest.mark.parametrize("model", launches.NARROW)
def test_a_step_launches_what_the_table_says(model: str, way: str) -> None:
    assert launches.by_phase(launches.count(launches.inputs_of(model), way)) == STATED[model][way]


def test_a_step_of_modernbert_base_stays_below_its_aim() -> None:
    assert STATED["modernbert-base"]["varlen"]["total"] <= 1500
