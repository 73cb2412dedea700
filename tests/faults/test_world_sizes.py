"""Tests of one run at changing numbers of workers: real ZeRO-2 process groups, one after the other, on each other's checkpoints."""

from __future__ import annotations

import pytest

from sst2_ray.config.train import TrainConfig
from tests.support.models import sbert_folder
from tests.support.training import Scenario, play_in_group

WORLD_SIZES = (2, 1, 4, 2)
STEPS = 20
"""Steps of each run."""


def test_losses_are_those_of_a_constant_world_size(tmp_path):
    sbert_folder(tmp_path / "model")
    config = TrainConfig(
        model=str(tmp_path / "model"), batch_size=16, epochs=8, precision="fp32", learning_rate=1e-3,
        encoder_dropout=0.1, checkpoint_every_steps=STEPS,
    )  # fmt: skip
    (constant,) = play_in_group(2, [Scenario(config=config, folder=str(tmp_path / "constant"))])
    assert len(constant.losses) == len(WORLD_SIZES) * STEPS
    losses: list[float] = []
    for number, world_size in enumerate(WORLD_SIZES):
        last = number == len(WORLD_SIZES) - 1
        scenario = Scenario(
            config=config,
            folder=str(tmp_path / "changing"),
            resume=number > 0,
            # One step after the checkpoint that the next group goes on from.
            interrupt_after=None if last else (number + 1) * STEPS + 1,
        )
        (part,) = play_in_group(world_size, [scenario])
        losses += part.losses[:STEPS]
    assert losses == pytest.approx(constant.losses, rel=1e-5)
    assert part.dev_losses == pytest.approx(constant.dev_losses, rel=1e-5)
