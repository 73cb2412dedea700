"""Tests of how many steps a run has, and after which of them it evaluates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sst2_ray.config.train import TrainConfig
from sst2_ray.training.step_counts import evaluation_steps, total_steps


def config(**values) -> TrainConfig:
    return TrainConfig(**{"batch_size": 10, "epochs": 3, **values})


@pytest.mark.parametrize(("rows", "steps"), [(100, 30), (101, 33), (10, 3), (19, 6)])
def test_an_epoch_ends_with_what_is_left(rows, steps):
    assert total_steps(config(), rows) == steps


def test_max_steps_ends_a_run_earlier_and_never_later():
    assert total_steps(config(max_steps=7), 100) == 7
    assert total_steps(config(max_steps=700), 100) == 30


def test_it_evaluates_at_the_end_of_every_epoch():
    assert evaluation_steps(config(), 101) == {11, 22, 33}


def test_evaluations_inside_an_epoch_are_evenly_spaced():
    assert evaluation_steps(config(epochs=1, evaluations_per_epoch=4), 1000) == {25, 50, 75, 100}
    assert evaluation_steps(config(epochs=2, evaluations_per_epoch=3), 100) == {3, 7, 10, 13, 17, 20}


def test_there_is_at_most_one_evaluation_a_step():
    assert evaluation_steps(config(epochs=1, evaluations_per_epoch=50), 30) == {1, 2, 3}


def test_a_run_that_ends_inside_an_epoch_evaluates_there():
    assert evaluation_steps(config(max_steps=13), 100) == {10, 13}
    assert evaluation_steps(config(max_steps=4), 100) == {4}


@given(st.integers(10, 500), st.integers(1, 4), st.integers(1, 9), st.none() | st.integers(1, 200))
def test_the_last_step_is_evaluated_and_none_behind_it(rows, epochs, evaluations, max_steps):
    values = config(epochs=epochs, evaluations_per_epoch=evaluations, max_steps=max_steps)
    steps = evaluation_steps(values, rows)
    last = total_steps(values, rows)
    assert max(steps) == last
    assert min(steps) >= 1
    if max_steps is None:
        assert len(steps) == epochs * min(evaluations, last // epochs)
