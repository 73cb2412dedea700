"""Tests of what a run shows where there is no terminal: phases as they begin, and now and then how far it is."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from sst2_ray.run import display
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.messages import Progress
from sst2_ray.training.names import Phase

TRAINING = Progress(
    phase=Phase.TRAINING, global_step=120, total_steps=400, epoch=0.3, train_loss=0.3531, examples_per_sec=892.4,
    seconds_left=130.0,
)  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """Return a display, and a function that returns the lines that it has shown."""
    monkeypatch.setattr(display, "PLAIN_INTERVAL_S", 0.0)
    file = io.StringIO()
    return RunDisplay(Console(file=file, width=160)), lambda: file.getvalue().splitlines()


def test_phases_are_named_once_as_they_begin(shown):
    run, lines = shown
    with run:
        for phase in (Phase.MODEL, Phase.MODEL, Phase.EXPORT, Phase.COMMUNICATION, Phase.EXPORT):
            run.progress(Progress(phase=phase))
    assert lines() == ["starting the workers ...", "loading the model ...", *["exporting the model ..."] * 2]


def test_a_line_of_progress_says_loss_speed_and_what_is_left(shown):
    run, lines = shown
    with run:
        run.progress(TRAINING)
        run.progress(dataclasses.replace(TRAINING, train_loss=None, examples_per_sec=None, seconds_left=None))
    assert lines()[1:] == [
        "epoch 0.30  step 120/400  last minute: loss 0.353  892 examples/s  2 min left",
        "epoch 0.30  step 120/400",
    ]
