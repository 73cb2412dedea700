"""Speed and loss of the last minute, and what is left at that speed."""

from __future__ import annotations

import pytest

from sst2_ray.run.recent import Position, Recent


def moved(
    recent: Recent, *, until_s: int, steps_a_second: int, share: float = 1.0, begin_s: int = 0, step: int = 0
) -> int:
    """A position a second, of steps of 8 examples that take `share` of the time. Returns the steps done."""
    for second in range(begin_s, until_s + 1):
        recent.move(Position(at_s=second, training_s=second * share, global_step=step, num_examples=8 * step))
        step += steps_a_second
    return step


def test_before_the_second_position_nothing_is_known():
    recent = Recent()
    assert (recent.loss, recent.examples_per_sec, recent.seconds_left(100)) == (None, None, None)
    recent.move(Position(at_s=0.0, training_s=1.0, global_step=1, num_examples=8))
    assert (recent.examples_per_sec, recent.seconds_left(100)) == (None, None)


def test_the_speed_is_that_of_the_last_minute():
    recent = Recent()
    step = moved(recent, until_s=300, steps_a_second=1)
    assert recent.examples_per_sec == pytest.approx(8)
    moved(recent, begin_s=301, until_s=400, steps_a_second=3, step=step)
    assert recent.examples_per_sec == pytest.approx(24)


def test_evaluations_are_left_out_of_the_speed_and_counted_in_what_is_left():
    recent = Recent()
    moved(recent, until_s=100, steps_a_second=2, share=0.5)
    assert recent.examples_per_sec == pytest.approx(32)
    assert recent.seconds_left(200 + 60) == pytest.approx(30)


def test_the_loss_forgets_what_is_older_than_a_minute():
    recent = Recent()
    for second, loss in [(0, 9.0), (50, 1.0), (100, 2.0)]:
        recent.add_loss(second, loss)
        recent.move(Position(at_s=second, training_s=second, global_step=second, num_examples=second))
    assert recent.loss == pytest.approx(1.5)
