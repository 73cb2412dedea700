"""Class weights and smoothed labels against torch's own loss of the whole global batch."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.batching import MicroBatch, collate
from sst2_ray.storage import Storage
from sst2_ray.training.feed import prefetched
from sst2_ray.training.loop import Loop
from sst2_ray.training.objective import Objective
from tests.support.training import Scenario, context_of, play_in_group, training_rows

WEIGHTS = (0.3, 2.5)
CASES = [(None, 0.1), (WEIGHTS, 0.0), (WEIGHTS, 0.1)]


def config_of(folder: Path, **values: object) -> TrainConfig:
    defaults = {"engine": "torch", "batch_size": 24, "precision": "fp32", "dropout": 0.0, "encoder_dropout": 0.0}
    return TrainConfig(model=str(folder), **{**defaults, **values})


@pytest.mark.parametrize("micro_batch_tokens", [16, 100_000])
@pytest.mark.parametrize(("weights", "smoothing"), CASES)
def test_the_gradient_of_a_global_batch_is_that_of_torchs_loss_of_it(
    sbert_folder: Path, tmp_path: Path, weights: tuple[float, ...] | None, smoothing: float, micro_batch_tokens: int
) -> None:
    train = training_rows(100)
    context = context_of(
        config_of(sbert_folder, label_smoothing=smoothing), train, training_rows(24), Storage.open(str(tmp_path)),
        micro_batch_tokens=micro_batch_tokens, class_weights=weights,
    )  # fmt: skip
    loop, reference = Loop(context), copy.deepcopy(context.model)
    with ThreadPoolExecutor(1) as pool:
        batch = next(prefetched(context, 0, pool))
    assert len(batch.inputs) == 1 or micro_batch_tokens == 16
    context.model.train()
    loop.gradients.compute(batch, loop.global_step)

    rows = batch.plan.global_rows
    whole = MicroBatch(rows=rows, weights=np.ones(len(rows), dtype=np.float32), width=int(train.lengths[rows].max()))
    ids, mask = map(torch.from_numpy, collate(train, whole, pad_id=context.pad_id))
    loss = torch.nn.functional.cross_entropy(
        reference(ids, mask),
        torch.from_numpy(train.labels[rows].astype(np.int64)),
        weight=torch.tensor(weights) if weights else None,
        label_smoothing=smoothing,
    )
    loss.backward()
    expected = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in context.model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert float(loop.sums[2]) == len(rows)


def test_only_the_ratios_of_weights_matter() -> None:
    labels = np.array([0, 0, 1, 2], dtype=np.int16)
    one, ten = (
        Objective(class_weights=[f * w for w in (1, 2, 4)], labels=labels, device=torch.device("cpu")) for f in (1, 10)
    )
    logits, numbers = torch.randn(4, 3), torch.from_numpy(labels.astype(np.int64))
    assert torch.equal(one.row_losses(logits, numbers), ten.row_losses(logits, numbers))
    assert one.batch_scale(labels) == pytest.approx(1.0)


def test_without_weights_nothing_is_scaled() -> None:
    plain = Objective(labels=np.array([0, 1], dtype=np.int16), device=torch.device("cpu"))
    assert plain.batch_scale(np.array([0, 1], dtype=np.int16)) is None


def test_two_ranks_and_their_micro_batches_come_to_the_loss_of_one(sbert_folder: Path, tmp_path: Path) -> None:
    """Ranks hold different classes: a divisor of each rank's own would weigh them otherwise."""
    found = {}
    for world_size, tokens in ((1, 100_000), (2, 16)):
        config = config_of(sbert_folder, engine="zero2", label_smoothing=0.1, learning_rate=1e-3, epochs=1)
        scenario = Scenario(
            config=config, folder=str(tmp_path / f"{world_size}"), micro_batch_tokens=tokens, class_weights=WEIGHTS
        )
        (found[world_size],) = play_in_group(world_size, [scenario])
    assert found[2].losses == pytest.approx(found[1].losses, rel=1e-5)
    assert found[2].dev_losses == pytest.approx(found[1].dev_losses, rel=1e-5)
