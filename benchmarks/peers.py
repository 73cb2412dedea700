"""The ways of training that throughput.py compares, each as a function of a number of steps.

All train the same model on the same rows in one process. `examples` and `seconds` are those of the steps after warm-up.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.shared import task_of
from sst2_ray.config import TrainConfig
from sst2_ray.launch.prepare import Checked, Prepared
from sst2_ray.modeling.sources import local_folder
from sst2_ray.training.calibrate import loop_of

WARM_UP_STEPS = 4
WIDTH = 128
"""Tokens that the notebook study and Ray's example pad every sentence to."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all ways train."""

    config: TrainConfig
    checked: Checked
    prepared: Prepared
    bf16: bool

    @property
    def folder(self) -> Path:
        folder = local_folder(self.checked.resolved)
        assert folder is not None, "the peers load pretrained weights"
        return folder

    def rows(self) -> list[dict[str, Any]]:
        tokens = self.prepared.tokens["train"]
        ids = np.split(tokens.input_ids, tokens.offsets[1:-1])
        labels = tokens.labels.tolist()
        return [{"input_ids": i.tolist(), "labels": y, "length": len(i)} for i, y in zip(ids, labels, strict=True)]


Run = Callable[[int], tuple[int, float]]
"""From a number of steps to the examples trained and the seconds that took."""


def ours(job: Job, engine: str) -> Run:
    """The main job's worker code: model, engine and loop of an attempt; engine zero2 or torch."""
    import dataclasses

    config = dataclasses.replace(job.config, engine=engine)
    task = task_of(job.checked, job.prepared, config)
    loop = loop_of(task, job.prepared.tokens)

    def run(steps: int) -> tuple[int, float]:
        loop.steps_alone(WARM_UP_STEPS)
        return loop.steps_alone(steps)

    return run


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]  # noqa: ARG002
        self.end = time.perf_counter()
        if state.global_step == WARM_UP_STEPS:
            self.start = self.end


def trainer(job: Job, *, grouped: bool) -> Run:
    """The Hugging Face Trainer, padded to the longest of a batch; grouped: batches of like length, its best setting."""
    rows = job.rows()
    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    model = AutoModelForSequenceClassification.from_pretrained(job.folder, num_labels=2, dtype=torch.float32)

    def run(steps: int) -> tuple[int, float]:
        clock = _Clock()
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch,
                use_cpu=True,
                bf16=job.bf16,
                per_device_train_batch_size=job.config.batch_size,
                max_steps=WARM_UP_STEPS + steps,
                learning_rate=job.config.learning_rate,
                train_sampling_strategy="group_by_length" if grouped else "random",
                length_column_name="length",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=int(time.time()) % 2**31,
            )
            data: Any = rows
            if grouped:
                from datasets import Dataset

                data = Dataset.from_list(rows)
            Trainer(
                model=model,
                args=arguments,
                train_dataset=data,
                data_collator=DataCollatorWithPadding(tokenizer),
                callbacks=[clock],
            ).train()
        return steps * job.config.batch_size, clock.end - clock.start

    return run


def notebook(job: Job, *, batch_size: int = 32) -> Run:
    """The notebook study's loop: fp32, every sentence padded to 128 tokens, torch's AdamW as it comes."""
    rows, order = job.rows(), np.random.default_rng(0)
    model = AutoModelForSequenceClassification.from_pretrained(job.folder, num_labels=2, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            chosen = [rows[i] for i in order.integers(len(rows), size=batch_size)]
            ids = torch.zeros(batch_size, WIDTH, dtype=torch.int64)
            for place, row in zip(ids, chosen, strict=True):
                place[: row["length"]] = torch.tensor(row["input_ids"])
            yield {
                "input_ids": ids,
                "attention_mask": (ids > 0).long(),
                "labels": torch.tensor([r["labels"] for r in chosen]),
            }

    source = batches()

    def run(steps: int) -> tuple[int, float]:
        start = 0.0
        for step in range(1 + steps):  # one step of warm-up: its shapes never change
            start = time.perf_counter() if step == 1 else start
            model(**next(source)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return steps * batch_size, time.perf_counter() - start

    return run
