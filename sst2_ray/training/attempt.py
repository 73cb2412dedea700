"""A rank's whole attempt: model, engine, the loop, and its end. Knows nothing of Ray."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from sst2_ray.data.texts import Text
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.modeling.attention.choice import VARLEN
from sst2_ray.modeling.build import build_classifier, compile_layers
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.compiler import has_compiler
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.modeling.tokenizers import tokenizer_from_json
from sst2_ray.own_files import CONFIG_FILE
from sst2_ray.storage import Storage
from sst2_ray.training import fault_injection as faults
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.context import AttemptReporter, LoopContext
from sst2_ray.training.engine.base import TrainEngine
from sst2_ray.training.engine.build import build_engine
from sst2_ray.training.feed import most_tokens_at_once
from sst2_ray.training.finish import Finish, Trained
from sst2_ray.training.loop import Loop
from sst2_ray.training.names import Phase
from sst2_ray.training.objective import Objective
from sst2_ray.training.outcome import AttemptEnd, Yielded
from sst2_ray.training.precision import use_bf16
from sst2_ray.training.step_counts import total_steps
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS, Task, compiles_layers, replays_graphs
from sst2_ray.training.throughput import PhaseTimer, mark_of

LOGGER = logging.getLogger("sst2_ray")  # of the rank's log


class Attempt:
    """The way of a rank from its task to the exported model."""

    def __init__(
        self,
        task: Task,
        tokens: dict[str, TokenArrays],
        run: Storage,
        reporter: AttemptReporter,
        *,
        texts: Callable[[], list[Text]],
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        """Prepare an attempt; nothing is built yet.

        Args:
            task: the same on every rank.
            tokens: train, dev and, where a part of train is held out, selection.
            run: folder of the run.
            reporter: receives what happens.
            texts: returns the dev sentences; rank 0 alone calls it.
            device: of this rank.
            rank: among `world_size`.
            world_size: of torch's default process group.
        """
        self.task, self.tokens, self.storage, self.reporter, self.texts = task, tokens, run, reporter, texts
        self.config = task.config
        self.device, self.rank, self.world_size = device, rank, world_size
        self.bf16 = use_bf16(self.config.precision, device)
        self.timer = PhaseTimer(mark_of(device))
        # The driver wrote it; runs of older versions have none.
        described = run.read_json(CONFIG_FILE) if run.exists(CONFIG_FILE) else {}
        self.data_fingerprint: str | None = described.get("data_fingerprint")
        self.tokenizer = tokenizer_from_json(task.tokenizer_json)

    def run(self) -> AttemptEnd:
        """Train and export, or leave on request; returns the same on all ranks."""
        self.reporter.phase(Phase.MODEL)
        with tempfile.TemporaryDirectory() as scratch:
            saved = self._resume_point(Path(scratch))
            context = self.context(saved)
            if self.rank == 0:  # an attempt that runs out of memory leaves it behind: the next one takes half
                self.reporter.micro_batches(most_tokens_at_once(context))
            if saved is not None and self.rank == 0:
                # A kill between a checkpoint and the table left these out; the table's reader removes doubles.
                self.reporter.write_records([ckpt.record_from_json(r) for r in saved.state["records"]])
            loop = Loop(context)  # reads the checkpoint to its end
        result = loop.train()
        if result is None:
            return Yielded(global_step=loop.global_step)
        trained = Trained(
            task=self.task,
            context=context,
            result=result,
            reporter=self.reporter,
            tokenizer=self.tokenizer,
            dev=self.tokens["dev"],
            others={name: rows for name, rows in self.tokens.items() if name not in ("train", "dev", "selection")},
            texts=self.texts,
        )
        return Finish(trained, loop.wait_for_checkpoint).run()

    def _resume_point(self, scratch: Path) -> ckpt.Checkpoint | None:
        """Find the newest valid checkpoint; rank 0 chooses for all.

        Raises RunFailedError where it belongs to another config or other data.
        """
        if self.rank == 0:
            ckpt.drop_uncommitted(self.storage)
        # Every rank reads and checks at the same time; what rank 0 has found counts.
        warn = self.reporter.note if self.rank == 0 else LOGGER.info
        found = ckpt.newest_valid(self.storage, scratch, warn)
        if self.rank == 0 and found is not None:
            ckpt.drop_newer(self.storage, found.global_step)
        step = [found.global_step if found else -1]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(step, src=0)
        if step[0] < 0:
            return None
        saved = found if found and found.global_step == step[0] else ckpt.fetch(self.storage, step[0], scratch)
        self._check_same_run(saved)
        if self.rank == 0:
            self.reporter.note(f"going on from the checkpoint at step {step[0]}")
        return saved

    def _check_same_run(self, saved: ckpt.Checkpoint) -> None:
        step, state = saved.global_step, saved.state
        saved_of = state.get("data_fingerprint")
        if None not in (saved_of, self.data_fingerprint) and saved_of != self.data_fingerprint:
            raise RunFailedError(
                f"the data changed since the checkpoint at step {step} of {self.storage.root} (fingerprint {saved_of} -> "
                f"{self.data_fingerprint}); choose another --name",
                FailureClass.DATA_ERROR,
            )
        num_rows = len(self.tokens["train"])
        if state["config_hash"] != self.config.config_hash or state["num_train_rows"] != num_rows:
            raise RunFailedError(
                f"the checkpoint at step {step} belongs to another config or other data", FailureClass.DATA_ERROR
            )

    def context(self, saved: ckpt.Checkpoint | None) -> LoopContext:
        """Build model, optimizer and engine, as `saved` left them, and what else the loop is given."""
        config, task = self.config, self.task
        model = self._model(saved)
        kind = "packed" if model.packs(self.device) else self.device.type
        micro_batch_tokens = task.micro_batch_tokens or DEFAULT_MICRO_BATCH_TOKENS[kind]
        keys = model.key_dropout()
        if self._compiles():
            compile_layers(model)
        cuda_graphs = self._uses_graphs(model)
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
            micro_batch_tokens=micro_batch_tokens,
            train=self.tokens["train"],
            evaluation=self.tokens[split],
            evaluation_split=split,
            pad_id=self.tokenizer.pad_token_id,
            model=model,
            dropout_keys=keys,
            engine=self._engine(model, cuda_graphs=cuda_graphs),
            cuda_graphs=cuda_graphs,
            objective=Objective(
                class_weights=task.class_weights,
                label_smoothing=config.label_smoothing,
                is_regression=config.is_regression,
                labels=self.tokens["train"].labels,
                device=self.device,
            ),
            run=self.storage,
            data_fingerprint=self.data_fingerprint,
            reporter=self.reporter,
            resume_from=saved,
            timer=self.timer,
            preemption_requested=self.reporter.preemption_requested,
            failure_interval_s=task.failure_interval_s,
            on_step=faults.hook_of(faults.planned(attempt=task.attempt, rank=self.rank), model, self.device),
        )

    def _uses_graphs(self, model: SentenceClassifier) -> bool:
        """Tell whether small micro-batches are replayed as graphs."""
        can = self.device.type == "cuda" and model.info.attention == VARLEN and not self.config.pad_to_max_length
        if self.config.cuda_graphs and not can:
            raise InputError(
                f"--cuda-graphs: needs a GPU and varlen attention, and this worker has {self.device.type} and "
                f"{model.info.attention}; leave it out"
            )
        return can and replays_graphs(self.config, self._tokens_per_step)

    @property
    def _tokens_per_step(self) -> float:
        """Return the tokens of this worker's share of a step, about."""
        train = self.tokens["train"]
        return self.config.batch_size * len(train.input_ids) / len(train) / self.world_size

    def _compiles(self) -> bool:
        """Tell whether the encoder's layers are compiled."""
        if self.config.compile is not None or self.device.type != "cuda":
            return bool(self.config.compile)
        tokens = total_steps(self.config, len(self.tokens["train"])) * self._tokens_per_step
        if not compiles_layers(self.config, tokens):
            return False
        if not has_compiler() and self.rank == 0:
            self.reporter.note("layers run uncompiled: no C compiler (cc, gcc, clang or $CC) on this worker")
        return has_compiler()

    def _model(self, saved: ckpt.Checkpoint | None) -> SentenceClassifier:
        model = build_classifier(
            self.task.resolved,
            self.tokenizer,
            seed=self.config.seed,
            dropout=self.config.dropout,
            encoder_dropout=self.config.encoder_dropout,
            device=self.device,
        )
        if saved is not None:
            saved.load_model(model)
        return model

    def _engine(self, model: SentenceClassifier, *, cuda_graphs: bool) -> TrainEngine:
        overlaps = self.config.overlap_comm and self.device.type == "cuda" and not cuda_graphs
        engine = build_engine(
            self.config.engine,
            model,
            build_optimizer(model, self.config),
            max_grad_norm=self.config.max_grad_norm,
            device=self.device,
            overlap_comm=overlaps,
        )
        if cuda_graphs:
            engine.hold_gradients()
        return engine
