"""The training loop without Ray: on toy models, in this process or in processes of a group."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
from sst2_ray.records import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import LoopContext
from sst2_ray.training.engine.build import build_engine
from sst2_ray.training.loop import Loop
from sst2_ray.training.objective import Objective
from tests.support.models import SENTENCES
from tests.support.tokens import review_lengths, token_arrays


class InterruptedRun(Exception):
    """Stands for whatever ends a process in mid-run."""


@dataclass
class Recorder:
    """A Reporter that keeps what it is told."""

    records: list[EpochRecord] = field(default_factory=list)
    best_at: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    batches: int = 0
    """Batches of evaluations."""
    stop_after: int | None = None
    """Asks to stop at the evaluation after this step."""

    def progress(self, *, global_step, **_) -> None:
        self.steps.append(global_step)

    def alive(self) -> None:
        self.batches += 1

    def saved(self, global_step):
        pass

    def evaluated(self, record, *, is_best):
        self.records.append(record)
        if is_best:
            self.best_at.append(record.global_step)
        return "stopped" if self.stop_after is not None and record.global_step >= self.stop_after else None


def training_rows(num_rows: int, *, vocabulary: int = 100) -> TokenArrays:
    """Make sentences as long as SST-2's; whether they are positive can be told from their second token."""
    tokens = token_arrays(review_lengths(num_rows), vocabulary=vocabulary)
    labels = (tokens.input_ids[tokens.offsets[:-1] + 1] % 2).astype(np.int8)
    return dataclasses.replace(tokens, labels=labels)


def context_of(
    config: TrainConfig,
    train: TokenArrays,
    evaluation: TokenArrays,
    run: Storage,
    *,
    rank: int = 0,
    world_size: int = 1,
    micro_batch_tokens: int = 256,
    resume: bool = False,
    device: str = "cpu",
    class_weights: tuple[float, ...] | None = None,
) -> LoopContext:
    """Make the context as an attempt does, on the newest valid checkpoint of the run where it is to be resumed."""
    where = torch.device(device)
    resolved = resolve_model(config)
    tokenizer = load_tokenizer(resolved, lambda: SENTENCES)
    model = build_classifier(
        resolved, tokenizer, seed=config.seed, dropout=config.dropout, encoder_dropout=config.encoder_dropout,
        device=where,
    )  # fmt: skip
    saved = ckpt.newest_valid(run, Path(tempfile.gettempdir()), print) if resume else None
    if saved is not None:
        saved.load_model(model)
    keys = model.key_dropout()
    optimizer = build_optimizer(model, config)
    return LoopContext(
        config=config,
        experiment="experiment",
        trial_id="trial",
        attempt=0,
        rank=rank,
        world_size=world_size,
        device=where,
        bf16=config.precision == "bf16",
        micro_batch_tokens=micro_batch_tokens,
        train=train,
        evaluation=evaluation,
        evaluation_split="dev",
        pad_id=tokenizer.pad_token_id,
        model=model,
        dropout_keys=keys,
        engine=build_engine(config.engine, model, optimizer, max_grad_norm=config.max_grad_norm, device=where),
        objective=Objective(
            class_weights=class_weights,
            label_smoothing=config.label_smoothing,
            is_regression=config.is_regression,
            labels=train.labels,
            device=where,
        ),
        run=run,
        reporter=Recorder(),
        resume_from=saved,
    )


def interrupt_after(loop: Loop, step: int) -> None:
    """End the run at that step, when the checkpoints handed to the writer are on storage."""

    def hook(done: int) -> None:
        if done == step:
            loop.writer.wait()
            raise InterruptedRun

    loop.context.on_step = hook


def record_losses(loop: Loop) -> list[float]:
    """Record the mean loss of every global batch, as they are trained; the same on all ranks. Call after `interrupt_after`."""
    losses: list[float] = []
    before = [0.0, 0.0]
    then = loop.context.on_step

    def hook(done: int) -> None:
        sums = loop.sums.clone()
        if loop.context.world_size > 1:
            torch.distributed.all_reduce(sums)
        total, _, count = sums.tolist()
        if count <= before[1]:  # an evaluation has begun to count anew
            before[:] = [0.0, 0.0]
        losses.append((total - before[0]) / (count - before[1]))
        before[:] = [total, count]
        if then is not None:
            then(done)

    loop.context.on_step = hook
    return losses


def digest_of(model: torch.nn.Module) -> str:
    """Digest the weights: equal for weights that are equal bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---- in processes of a group


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Description of one run of the loop."""

    config: TrainConfig
    folder: str
    micro_batch_tokens: int = 256
    num_rows: int = 160
    vocabulary: int = 100
    interrupt_after: int | None = None
    resume: bool = False
    device: str = "cpu"
    class_weights: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a run, of rank 0."""

    losses: tuple[float, ...]
    digest: str
    dev_losses: tuple[float, ...]
    wasted_steps: int
    """Steps taken before the interruption that no checkpoint holds."""


def play(scenario: Scenario, *, rank: int = 0, world_size: int = 1) -> Outcome:
    train = training_rows(scenario.num_rows, vocabulary=scenario.vocabulary)
    evaluation = training_rows(24, vocabulary=scenario.vocabulary)
    run = Storage.open(scenario.folder)
    context = context_of(
        scenario.config, train, evaluation, run, rank=rank, world_size=world_size,
        micro_batch_tokens=scenario.micro_batch_tokens, resume=scenario.resume, device=scenario.device,
        class_weights=scenario.class_weights,
    )  # fmt: skip
    loop = Loop(context)
    if scenario.interrupt_after is not None:
        interrupt_after(loop, scenario.interrupt_after)
    losses = record_losses(loop)
    wasted = 0
    try:
        loop.train()
        loop.wait_for_checkpoint()
    except InterruptedRun:
        wasted = loop.global_step - loop.saved_step
    if world_size > 1:
        torch.distributed.barrier()
    dev_losses = tuple(float(record.dev_loss) for record in loop.records)
    return Outcome(losses=tuple(losses), digest=digest_of(context.model), dev_losses=dev_losses, wasted_steps=wasted)


def _member(rank: int, world_size: int, port: int, scenarios: list[Scenario], backend: str, out: str) -> None:
    """Play all scenarios one after the other, as one process of a group."""
    import pickle

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1 if world_size > 1 else 2)
    if backend == "nccl":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(backend, rank=rank, world_size=world_size)
    try:
        outcomes = [play(scenario, rank=rank, world_size=world_size) for scenario in scenarios]
    finally:
        torch.distributed.destroy_process_group()
    if rank == 0:
        Path(out).write_bytes(pickle.dumps(outcomes))


@contextlib.contextmanager
def group_of_one() -> Iterator[None]:
    """Make a process group of this process alone. Afterwards DeepSpeed is as it was: it keeps groups, and some of its
    functions are replaced."""
    from deepspeed.comm import comm
    from deepspeed.runtime.zero import stage_1_and_2
    from deepspeed.utils import groups

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("TORCHDYNAMO_DISABLE", "1")):
            patch.setenv(name, value)
        patch.setattr(comm, "cdb", None)
        patch.setattr(groups, "_WORLD_GROUP", None)
        patch.setattr(stage_1_and_2, "all_gather_dp_groups", stage_1_and_2.all_gather_dp_groups)
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def play_in_group(world_size: int, scenarios: list[Scenario], *, backend: str = "gloo") -> list[Outcome]:
    """Play the scenarios in fresh processes, joined over loopback; an exception of one of them is raised here."""
    import pickle
    import socket

    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        out = f"{folder}/outcomes"
        torch.multiprocessing.start_processes(
            _member, args=(world_size, port, scenarios, backend, out), nprocs=world_size, start_method="spawn"
        )
        return pickle.loads(Path(out).read_bytes())
