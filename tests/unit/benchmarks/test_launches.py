"""The launches of a step are those that benchmarks/results/launches.json states: a change that adds some is seen here.

At a fraction of the width: operators do not depend on it.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from benchmarks import launches
from benchmarks.shared import REPOSITORY
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.prepare import RunInputs, check, prepare
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS

STATED = json.loads((REPOSITORY / "benchmarks/results/launches.json").read_text())["counts"]

NARROW = {
    "modernbert-base": {"model_type": "modernbert", "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2},
    "sbert-minilm": {
        "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 6,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def group_of_one():
    """ZeRO-2 asks for a process group."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("TORCHDYNAMO_DISABLE", "1")):
            patch.setenv(name, value)
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()


def inputs(model: str) -> RunInputs:
    """Of a run of a narrow `model` from random weights on reviews."""
    name = "modernbert-mini" if model.startswith("modernbert") else model
    config = TrainConfig(
        model=name, data="rotten-tomatoes", random_weights=name != model, train_rows=256, dev_rows=8, batch_size=64,
        precision="bf16", epochs=100, micro_batch_tokens=DEFAULT_MICRO_BATCH_TOKENS["cuda"],
    )  # fmt: skip
    found = prepare(check(config))
    info = dataclasses.replace(found.resolved.info, random_weights=True)
    resolved = dataclasses.replace(found.resolved, architecture=NARROW[model], info=info)
    return dataclasses.replace(found, resolved=resolved)


@pytest.mark.parametrize("way", ["varlen", "padded"])
@pytest.mark.parametrize("model", NARROW)
def test_a_step_launches_what_the_table_says(model: str, way: str) -> None:
    assert launches.by_phase(launches.count(inputs(model), way)) == STATED[model][way]


def test_a_step_of_modernbert_base_stays_below_its_aim() -> None:
    assert STATED["modernbert-base"]["varlen"]["total"] <= 1500
    assert STATED["modernbert-base"]["compiled"]["total"] <= 700
