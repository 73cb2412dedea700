"""The plan that a dry run prints: counted, not estimated, where it can be."""

from __future__ import annotations

import dataclasses

import pytest
from transformers import AutoConfig, AutoModel

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.run.model_size import num_parameters
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.planning.summary import describe
from sst2_ray.run.prepare import RunInputs, check
from sst2_ray.run.tokenizing import prepare
from tests.support import models
from tests.support.reviews import reviews, write_glue_folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> RunInputs:
    folder = tmp_path_factory.mktemp("plan")
    data = write_glue_folder(folder / "data", reviews(50), reviews(10, topic="play"))
    model = models.sbert_folder(folder / "model")
    config = TrainConfig(
        model=str(model), data=str(data), batch_size=16, epochs=3, max_length=64, storage_path=str(folder / "runs")
    )
    return prepare(check(config))


@pytest.fixture(scope="module")
def plan(prepared: RunInputs) -> dict[str, str]:
    return dict(describe(prepared, Placement(num_workers=2, cpus_per_worker=1, use_gpu=False)))


def test_rows_steps_and_workers(plan):
    assert "50 train rows, 10 dev of data" in plan["data"]
    assert plan["steps"].startswith("12 of 16 examples (4 an epoch, the last one of 2)")
    assert plan["workers"] == "2 workers of 1 CPU, DeepSpeed ZeRO-2"
    assert "config " in plan["run"]
    assert "GiB a worker: Python and libraries 0.90, weights " in plan["memory"]
    assert plan["messages"].endswith("gradients and weights")
    assert plan["storage"].endswith("up to 2.0 MiB of checkpoints while it runs, 172.0 KiB for the exported model")


@pytest.mark.parametrize("kind", ["modernbert", "sbert"])
def test_parameters_are_counted_to_a_few_percent_at_toy_size(kind, tmp_path):
    folder = getattr(models, f"{kind}_folder")(tmp_path / kind)
    resolved = resolve_model(TrainConfig(model=str(folder), max_length=64))
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    actual = sum(p.numel() for p in model.parameters())
    assert num_parameters(resolved, vocab_size=0) == pytest.approx(actual, rel=0.05)


@pytest.mark.parametrize(("workers", "remedy"), [(1, "a larger batch ("), (8, "fewer GPUs or a larger batch (")])
def test_a_plan_that_leaves_its_gpus_waiting_is_told_so(prepared, workers, remedy):
    plan = dict(describe(prepared, Placement(num_workers=workers, cpus_per_worker=1, use_gpu=True)))
    assert "replayed as CUDA graphs where sentences are laid end to end: " in plan["launches"]
    assert "tokens a GPU and step: below about 1,500 more than half of a large GPU's step is launches" in plan["advice"]
    assert remedy in plan["advice"]


def test_a_plan_with_enough_tokens_gets_no_advice_and_cpus_launch_nothing(prepared, plan):
    large = dataclasses.replace(prepared, config=dataclasses.replace(prepared.config, batch_size=4096))
    placement = Placement(num_workers=1, cpus_per_worker=1, use_gpu=True)
    assert "advice" not in dict(describe(large, placement))
    long = dataclasses.replace(large, config=dataclasses.replace(large.config, epochs=1_000_000, cuda_graphs=False))
    assert "a step, layers compiled, one by one: " in dict(describe(long, placement))["launches"]
    assert not {"launches", "advice"} & plan.keys()


@pytest.mark.parametrize(("workers", "said"), [(1, "none: one worker"), (2, " s at 10 Gbit/s")])
def test_messages_take_time_on_a_network(prepared, workers, said):
    placement = Placement(num_workers=workers, cpus_per_worker=1, use_gpu=False)
    assert dict(describe(prepared, placement, network_gbit_per_s=10))["messages"].endswith(said)
