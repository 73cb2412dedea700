"""The least time of a run on GPUs that are not here, and what more of them would change: arithmetic against the cost model's."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import pytest

from sst2_ray.config.sources import TrainCommand, read_train_command
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.run.planning.cost_model import ModelSize, communication_bytes, launches, step_time
from sst2_ray.run.planning.nodes import machines_on_demand
from sst2_ray.run.planning.paper import CHIPS, PaperForecast, Step, paper_forecast
from sst2_ray.run.planning.placement import decide
from sst2_ray.training.gpus import GPUS

# ModernBERT-base at batch 64 of SST-2.
SIZE = ModelSize(
    parameters=150_000_000, multiplied=111_000_000, layers=22, hidden=768, inner=1152, gated=True, heads=12, window=128,
    global_layers=8,
)  # fmt: skip
STEP = Step(size=SIZE, tokens=64 * 15.3, length=15, micro_batch_tokens=32768, compiled=True)


def on(chip: str = "L4", *, step: Step = STEP, **options: float | int | None) -> PaperForecast:
    found = paper_forecast(step, [chip], num_steps=1053, **{"num_workers": 1, **options})  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_steps_are_those_of_the_cost_model():
    found = on(network_gbit_per_s=10)
    for count, seconds in found.step_seconds.items():
        expected = step_time(
            SIZE, GPUS["NVIDIA L4"], num_gpus=count, tokens_per_gpu=64 * 15.3 / count, length=15, gpus_per_node=1,
            network_bytes_per_s=1.25e9, num_launches=launches(SIZE),
        )  # fmt: skip
        assert seconds == expected.total
    assert found.seconds == pytest.approx(1053 * found.step_seconds[1])
    assert found.sent_bytes[2] == 1053 * 2 * communication_bytes(SIZE, num_workers=2) and found.sent_bytes[1] == 0


def test_more_workers_on_a_slow_network_are_said_to_be_slower():
    said = dict(on(network_gbit_per_s=10).rows())
    assert "2 are slower (" in said["more workers"] and "10 Gbit/s between machines" in said["more workers"]
    assert (
        said["on paper"].startswith("all steps at least ") and "NVIDIA L4 at the data sheet's peak" in said["on paper"]
    )


def test_a_large_batch_makes_more_workers_faster():
    large = dataclasses.replace(STEP, tokens=4096 * 15.3)
    assert "2 are faster (" in dict(on("A100", step=large, network_gbit_per_s=400).rows())["more workers"]


@pytest.mark.parametrize("tokens", [64 * 15.3, 4096 * 15.3, 200_000.0])
@pytest.mark.parametrize("chip", ["L4", "A100", "H100"])
def test_the_rate_that_is_named_is_where_two_become_faster(chip: str, tokens: float):
    step = dataclasses.replace(STEP, tokens=tokens)
    needed = on(chip, step=step).needed_gbit_per_s
    if needed is None:  # not even at the rate of the GPUs' own links
        fast = 8e-9 * GPUS[CHIPS[chip]].link_bytes_per_s
        found = on(chip, step=step, network_gbit_per_s=fast).step_seconds
        assert found[2] >= found[1]
        return
    below, above = (on(chip, step=step, network_gbit_per_s=needed * x).step_seconds for x in (0.99, 1.01))
    assert below[2] > below[1] and above[2] < above[1]


def test_without_a_rate_only_what_stays_on_one_machine_is_compared():
    assert set(on().step_seconds) == {1}
    assert (
        "Gbit/s between them" in dict(on().rows())["more workers"] or "any network" in dict(on().rows())["more workers"]
    )
    assert set(on("A100", gpus_per_node=8).step_seconds) == {1, 2, 4, 8}


def test_a_gpu_without_a_data_sheet_gets_no_forecast():
    assert paper_forecast(STEP, ["T4", ""], num_steps=1, num_workers=1) is None
    assert paper_forecast(STEP, ["T4", "L4"], num_steps=1, num_workers=1) is not None


def test_every_accelerator_that_can_be_planned_for_has_a_data_sheet():
    asked = get_args(get_args(get_type_hints(TrainCommand)["plan_gpu"])[0])
    assert set(asked) == set(CHIPS) and set(CHIPS.values()) <= set(GPUS)


def test_a_plan_for_machines_on_demand_is_for_one_worker_with_a_gpu():
    placement = decide(TrainConfig(), machines_on_demand("L4", 1))
    assert (placement.num_workers, placement.use_gpu, placement.can_scale) == (1, True, True)


@pytest.mark.parametrize("flags", [["--plan-gpu", "L4"], ["--plan-gpu", "L4", "--dry-run", "--calibrate"]])
def test_a_gpu_to_plan_for_is_for_plans_only(flags: list[str]):
    with pytest.raises(InputError, match=r"^--plan-gpu: is for plans on paper"):
        read_train_command(flags, prog="sst2-ray train")
