"""The ways of training that throughput.py and accuracy.py compare.

All train the same model, all-MiniLM-L6-v2 with mean pooling, dropout and a linear head, on the same rows. The main job, its
loop alone and the Trainer run in a fresh process every time. Steps count from WARM_UP_STEPS on.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.shared import (
    WARM_UP_STEPS,
    main_job_flags,
    process_group_of_one,
    rate_after_warm_up,
    run_in,
    task_of,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.sources import local_folder
from sst2_ray.run.prepare import RunInputs, check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.training.calibrate import loop_of, measure_steps
from sst2_ray.training.precision import use_bf16
from sst2_ray.training.task import Task

WIDTH = 128
"""Tokens that the notebook study pads every sentence to."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The task that all ways train."""

    config: TrainConfig
    prepared: RunInputs
    bf16: bool

    @property
    def folder(self) -> Path:
        folder = local_folder(self.prepared.resolved)
        assert folder is not None, "the peers load pretrained weights"
        return folder

    def rows(self, split: str = "train") -> list[dict[str, Any]]:
        tokens = self.prepared.tokens[split]
        ids = np.split(tokens.input_ids, tokens.offsets[1:-1])
        labels = tokens.labels.tolist()
        return [{"input_ids": i.tolist(), "labels": y, "length": len(i)} for i, y in zip(ids, labels, strict=True)]


def job_of(config: TrainConfig) -> Job:
    return Job(config=config, prepared=prepare(check(config)), bf16=use_bf16(config.precision, torch.device("cpu")))


Run = Callable[[int], float]
"""From a number of steps after warm-up to the examples a second in them."""


class PeerModel(nn.Module):
    """The usual way to build what `sbert-minilm` is here."""

    def __init__(self, folder: Path, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits = self.head(self.dropout((hidden * weights).sum(1) / weights.sum(1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def main_job(job: Job) -> Run:
    """Return the main job as a command, Ray included, in a process of its own, as its table of evaluations says: the first
    is that after warm-up, and its checkpoint is written during the steps that count."""
    assert job.config.train_rows == WARM_UP_STEPS * job.config.batch_size, "an epoch is the warm-up"

    def run(steps: int) -> float:
        flags = main_job_flags(job.config.model, job.config.batch_size, steps=WARM_UP_STEPS + steps, workers=1)
        with tempfile.TemporaryDirectory() as folder:
            run_in(folder, [*flags, f"--train-rows={job.config.train_rows}", f"--precision={job.config.precision}"])
            return rate_after_warm_up(folder)

    return run


def ours(job: Job, engine: str) -> Run:
    """Return the main job's worker code: model, engine and loop of an attempt; engine zero2 or torch."""
    config = dataclasses.replace(job.config, engine=engine)
    task = task_of(job.prepared, config)
    return lambda steps: _in_fresh_process(process_group_of_one, _steps_of_ours, task, job.prepared.tokens, steps)


def _steps_of_ours(task: Task, tokens: dict[str, TokenArrays], steps: int) -> float:
    loop = loop_of(task, tokens)
    measure_steps(loop, WARM_UP_STEPS)
    examples, seconds = measure_steps(loop, steps)
    return examples / seconds


def _in_fresh_process(begin: Callable[[], None], function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` returns in a fresh process, after `begin`."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin) as pool:
        return pool.submit(function, *arguments).result()


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]  # noqa: ARG002
        self.end = time.perf_counter()
        if state.global_step == WARM_UP_STEPS:
            self.start = self.end


def trainer(job: Job, *, grouped: bool) -> Run:
    """Return the Hugging Face Trainer, padded to the longest of a batch; grouped: batches of like length, its best setting.

    In a process of its own: where it sees this one's process group it wraps the model in DDP, which costs it time.
    """

    def run(steps: int) -> float:
        return steps * job.config.batch_size / _in_fresh_process(_leave_group, _trainer_seconds, job, steps, grouped)

    return run


def _leave_group() -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)


def _trainer_seconds(job: Job, steps: int, grouped: bool) -> float:
    clock = _Clock()
    with tempfile.TemporaryDirectory() as scratch:
        made_trainer(
            job, PeerModel(job.folder), job.rows(), scratch, grouped=grouped, callbacks=[clock],
            max_steps=WARM_UP_STEPS + steps, seed=int(time.time()) % 2**31,
        ).train()  # fmt: skip
    return clock.end - clock.start


def made_trainer(
    job: Job,
    model: nn.Module,
    rows: list[dict[str, Any]],
    scratch: str,
    *,
    grouped: bool,
    callbacks: Any = (),
    **settings: Any,
) -> Trainer:
    """Make a Trainer with the optimizer and the schedule of the main job."""
    data: Any = rows
    if grouped:
        from datasets import Dataset

        data = Dataset.from_list(rows)
    arguments = TrainingArguments(
        output_dir=scratch,
        use_cpu=True,
        bf16=job.bf16,
        per_device_train_batch_size=job.config.batch_size,
        learning_rate=job.config.learning_rate,
        weight_decay=job.config.weight_decay,
        adam_beta1=job.config.adam_beta1,
        adam_beta2=job.config.adam_beta2,
        adam_epsilon=job.config.adam_eps,
        max_grad_norm=job.config.max_grad_norm,
        lr_scheduler_type="linear",
        warmup_steps=job.config.warmup_fraction,
        train_sampling_strategy="group_by_length" if grouped else "random",
        length_column_name="length",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(job.folder))
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=list(callbacks))


def ray_example(job: Job) -> Run:
    """Train as a worker of Ray's DeepSpeed example does: DeepSpeed's own engine over batches padded to their longest."""
    import deepspeed

    model = PeerModel(job.folder).train()
    engine, _, _, _ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        dist_init_required=False,
        config={
            "train_micro_batch_size_per_gpu": job.config.batch_size,
            "optimizer": {"type": "AdamW", "params": {"lr": job.config.learning_rate, "torch_adam": True}},
            "zero_optimization": {"stage": 2},
            "bf16": {"enabled": job.bf16},
            "steps_per_print": 10**9,
        },
    )
    source = _batches(job.rows(), job.config.batch_size)

    def step() -> None:
        engine.backward(engine(**next(source)).loss)
        engine.step()

    return _rate_of(step, job.config.batch_size, WARM_UP_STEPS)


def _rate_of(step: Callable[[], None], batch_size: int, warm_up_steps: int) -> Run:
    """Return the rate of steps in this process, warmed up once."""
    left = iter(range(warm_up_steps))

    def run(steps: int) -> float:
        for _ in left:
            step()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return steps * batch_size / (time.perf_counter() - start)

    return run


def _batches(rows: list[dict[str, Any]], batch_size: int, width: int | None = None) -> Iterator[dict[str, Tensor]]:
    """Yield random batches, padded to `width` tokens or to their longest."""
    order = np.random.default_rng(0)
    while True:
        chosen = [rows[i] for i in order.integers(len(rows), size=batch_size)]
        ids = torch.zeros(batch_size, width or max(row["length"] for row in chosen), dtype=torch.int64)
        for place, row in zip(ids, chosen, strict=True):
            place[: row["length"]] = torch.tensor(row["input_ids"])
        yield {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "labels": torch.tensor([row["labels"] for row in chosen]),
        }


def notebook(job: Job, *, batch_size: int = 32) -> Run:
    """Return the notebook study's loop: fp32, every sentence padded to 128 tokens, torch's AdamW as it comes."""
    model = PeerModel(job.folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    source = _batches(job.rows(), batch_size, WIDTH)

    def step() -> None:
        model(**next(source)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _rate_of(step, batch_size, 2)  # its shapes never change
