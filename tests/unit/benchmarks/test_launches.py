"""The launches of a step are those that benchmarks/results/launches.json states: a change that adds some is seen here."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import launches
from benchmarks.shared import REPOSITORY
from tests.support.training import group_of_one

STATED = json.loads((REPOSITORY / "benchmarks/results/launches.json").read_text())["counts"]


@pytest.fixture(scope="module", autouse=True)
def of_one():
    """ZeRO-2 asks for a process group."""
    with group_of_one():
        yield


@pytest.mark.skipif(
    "SST2_RAY_DATA" not in os.environ,
    reason="SST2_RAY_DATA is not set: the vocabulary of other sentences makes a model of another size, whose norm takes other launches",
)
@pytest.mark.parametrize("way", ["varlen", "padded"])
@pytest.mark.parametrize("model", launches.NARROW)
def test_a_step_launches_what_the_table_says(model: str, way: str) -> None:
    assert launches.by_phase(launches.count(launches.inputs_of(model), way)) == STATED[model][way]


def test_a_step_of_modernbert_base_stays_below_its_aim() -> None:
    assert STATED["modernbert-base"]["varlen"]["total"] <= 1500
    assert STATED["modernbert-base"]["compiled"]["total"] <= 700
