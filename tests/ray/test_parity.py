"""The same numbers as a plain loop in torch, at any number of workers and any micro-batching; and twice the same bits.

The loop is written from public definitions: AdamW (Loshchilov and Hutter 2019) with decay on matrices only, clipping to
the global norm, transformers' linear schedule, and the mean cross entropy over the whole, padded batch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

import sst2_ray
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.batching import epoch_permutation
from tests.support.models import build
from tests.support.runs import Runs

pytestmark = pytest.mark.usefixtures("two_cpus")

STEPS = 20
WARMUP_STEPS = 2


def plain_steps(config: TrainConfig) -> list[tuple[float, float]]:
    """Compute the loss and gradient norm before clipping of every optimizer step, in one process.

    Without this package's engine, micro-batches, loop or schedule.
    """
    lines = (Path(config.data) / "train.tsv").read_text().splitlines()[1:]
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    classes = torch.tensor([int(label) for label in labels])
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    model = build(config.model, seed=config.seed, dropout=0.0, encoder_dropout=0.0)[0].train()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_eps
    )
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS)
    order = epoch_permutation(len(texts), seed=config.seed, epoch=0)
    steps = []
    for step in range(STEPS):
        rows = order[step * config.batch_size : (step + 1) * config.batch_size].tolist()
        batch = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
        loss = torch.nn.functional.cross_entropy(logits(model, **batch), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        steps.append((loss.item(), norm.item()))
    return steps


def logits(model: Any, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
    """Compute transformers' own forward pass with padding; for SBERT with mean pooling and the linear head on it."""
    model.backbone.set_attn_implementation("eager")
    if model.info.kind == "modernbert":
        return model.backbone(input_ids=input_ids, attention_mask=attention_mask).logits
    hidden = model.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    mask = attention_mask[:, :, None].float()
    return model.head((hidden * mask).sum(dim=1) / mask.sum(dim=1))


@pytest.fixture(scope="module")
def plain(runs: Runs) -> dict[str, list[tuple[float, float]]]:
    return {kind: plain_steps(config_of(runs, "plain", kind)) for kind in ("sbert", "modernbert")}


def config_of(runs: Runs, name: str, kind: str, **values: Any) -> TrainConfig:
    """Make a config of 20 steps without dropout, evaluated after every one: the table's training loss is then that step's own."""
    return runs.config(
        name, model=str(runs.folder / kind), dropout=0.0, encoder_dropout=0.0, warmup_fraction=WARMUP_STEPS / STEPS,
        weight_decay=0.1, max_grad_norm=0.5, evaluations_per_epoch=STEPS, **values,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "num_workers", "micro_batch_tokens"),
    [("sbert", 1, None), ("sbert", 2, 64), ("sbert", 2, 4096), ("modernbert", 1, 64), ("modernbert", 2, None)],
)
def test_zero_2_gives_the_losses_of_plain_torch(
    runs: Runs, plain: dict[str, list[tuple[float, float]]], kind: str, num_workers: int, micro_batch_tokens: int | None
) -> None:
    name = f"{kind}-{num_workers}-{micro_batch_tokens}"
    config = config_of(runs, name, kind, num_workers=num_workers, micro_batch_tokens=micro_batch_tokens)
    sst2_ray.train(config, quiet=True)
    [trial] = [row for row in runs.rows("trials", name) if row["status"] == "succeeded"]
    assert (trial["engine"], trial["world_size"], trial["precision"]) == ("zero2", num_workers, "fp32")
    losses = [row["train_loss"] for row in runs.rows("epochs", name)]
    np.testing.assert_allclose(losses, [loss for loss, _ in plain[kind]], rtol=1e-5)


def test_every_part_of_the_plain_loop_matters(plain: dict[str, list[tuple[float, float]]]) -> None:
    """The reference that the others are compared with is no constant, and gradients are clipped."""
    for steps in plain.values():
        losses, norms = zip(*steps, strict=True)
        assert max(losses) - min(losses) > 0.02
        assert max(norms) > 0.5


def test_two_runs_of_a_seed_give_the_same_weights_bit_for_bit(runs: Runs) -> None:
    digests = []
    for name in ("once", "again"):
        result = runs.train(name, batch_size=18)
        weights = sorted(Path(result.model_dir).rglob("*.safetensors"))  # the encoder's and the head's
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in weights])
    assert digests[0] == digests[1]
