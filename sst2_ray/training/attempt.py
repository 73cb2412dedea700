"""One rank's whole attempt: model, engine, the loop, and what is left on storage when it ends. Knows nothing of Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import FailureClass, RunFailedError
from sst2_ray.modeling.build import build_classifier, compile_layers
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.modeling.tokenizers import tokenizer_from_json
from sst2_ray.records import EpochRecord, PredictionRecord
from sst2_ray.storage import Storage
from sst2_ray.training import fault_injection as faults
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import LoopContext, Reporter
from sst2_ray.training.engine.build import build_engine
from sst2_ray.training.finish import Finish
from sst2_ray.training.loop import Loop
from sst2_ray.training.names import LEFT
from sst2_ray.training.precision import use_bf16
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS, Task
from sst2_ray.training.throughput import PhaseTimer, mark_of


class AttemptReporter(Reporter, Protocol):
    """What an attempt tells besides the loop's progress."""

    first_step_at: float | None

    def asked_to_leave(self) -> bool: ...
    def phase(self, name: str) -> None: ...
    def note(self, line: str) -> None: ...
    def micro_batches(self, most_tokens: int) -> None: ...
    def write_records(self, records: list[EpochRecord]) -> None: ...
    def write_predictions(self, records: list[PredictionRecord]) -> None: ...


class Attempt:
    """Build, train, export. `texts` gives the dev sentences, asked for by rank 0 alone."""

    def __init__(
        self,
        task: Task,
        tokens: dict[str, TokenArrays],
        run: Storage,
        reporter: AttemptReporter,
        *,
        texts: Callable[[], list[str]],
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        self.task, self.tokens, self.storage, self.reporter, self.texts = task, tokens, run, reporter, texts
        self.config = task.config
        self.device, self.rank, self.world_size = device, rank, world_size
        self.bf16 = use_bf16(self.config.precision, device)
        self.micro_batch_tokens = task.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS[device.type]
        self.timer = PhaseTimer(mark_of(device))
        # As the driver wrote it; there is none in a run of an older version.
        described = run.read_json("config.json") if run.exists("config.json") else {}
        self.data_fingerprint: str | None = described.get("data_fingerprint")

    def run(self) -> dict[str, Any]:
        """Returns the fields of TrialRecord that only the workers know; the same on all ranks."""
        self.reporter.phase("model")
        with tempfile.TemporaryDirectory() as scratch:
            saved = self._resume_point(Path(scratch))
            context = self.context(saved)
            if saved is not None and self.rank == 0:
                # A kill between a checkpoint and the table left these out; the table's reader removes doubles.
                self.reporter.write_records([ckpt.record_from_json(r) for r in saved.state["records"]])
            loop = Loop(context)
            result = loop.train()
        if result is None:
            return {"status": LEFT, "last_global_step": loop.global_step}
        return Finish(self, context, result, loop.wait_for_checkpoint).run()

    def _resume_point(self, scratch: Path) -> ckpt.Checkpoint | None:
        """The newest valid checkpoint, chosen by rank 0 for all."""
        step = [-1]
        if self.rank == 0:
            ckpt.drop_uncommitted(self.storage)
            found = ckpt.newest_valid(self.storage, scratch, self.reporter.note)
            if found is not None:
                ckpt.drop_newer(self.storage, found.global_step)
            step = [found.global_step if found else -1]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(step, src=0)
        if step[0] < 0:
            return None
        saved = ckpt.fetch(self.storage, step[0], scratch)
        saved_of = saved.state.get("data_fingerprint")
        if None not in (saved_of, self.data_fingerprint) and saved_of != self.data_fingerprint:
            raise RunFailedError(
                f"the data changed since the checkpoint at step {step[0]} (fingerprint {saved_of} -> "
                f"{self.data_fingerprint}); choose another --name, or delete {self.storage.root}",
                FailureClass.DATA_ERROR,
            )
        if saved.state["config_hash"] != self.config.config_hash or saved.state["num_train_rows"] != len(
            self.tokens["train"]
        ):
            raise RunFailedError(
                f"the checkpoint at step {step[0]} belongs to another config or other data", FailureClass.DATA_ERROR
            )
        if self.rank == 0:
            self.reporter.note(f"going on from the checkpoint at step {step[0]}")
        return saved

    def context(self, saved: ckpt.Checkpoint | None) -> LoopContext:
        """Model, optimizer and engine, as `saved` left them, and what else the loop is given."""
        config, task = self.config, self.task
        tokenizer = tokenizer_from_json(task.tokenizer_json)
        model = build_classifier(
            task.resolved,
            tokenizer,
            seed=config.seed,
            dropout=config.dropout,
            encoder_dropout=config.encoder_dropout,
            device=self.device,
        )
        if saved is not None:
            saved.load_model(model)
        if task.micro_batch_tokens is None and model.packs(self.device):
            self.micro_batch_tokens = DEFAULT_MICRO_BATCH_TOKENS["packed"]
        self.reporter.micro_batches(self.micro_batch_tokens)
        keys = model.key_dropout()
        if config.compile:
            compile_layers(model)
        engine = build_engine(
            config.engine,
            model,
            build_optimizer(model, config),
            max_grad_norm=config.max_grad_norm,
            device=self.device,
            overlap_comm=config.overlap_comm and self.device.type == "cuda",
        )
        self.tokenizer, self.model = tokenizer, model
        split = "selection" if "selection" in self.tokens else "dev"
        return LoopContext(
            config=config,
            experiment=task.experiment,
            trial_id=task.trial_id,
            attempt=task.attempt,
            rank=self.rank,
            world_size=self.world_size,
            device=self.device,
            bf16=self.bf16,
            micro_batch_tokens=self.micro_batch_tokens,
            train=self.tokens["train"],
            evaluation=self.tokens[split],
            evaluation_split=split,
            pad_id=tokenizer.pad_token_id,
            model=model,
            dropout_keys=keys,
            engine=engine,
            run=self.storage,
            data_fingerprint=self.data_fingerprint,
            reporter=self.reporter,
            resume_from=saved,
            timer=self.timer,
            preemption_requested=self.reporter.asked_to_leave,
            on_step=faults.hook_of(faults.planned(attempt=task.attempt, rank=self.rank), model, self.device),
        )

    def maximum(self, value: float) -> float:
        """The largest over all ranks."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        return float(tensor)
