"""What runs on every training worker: the only glue between ray.train and the training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.records import EpochRecord, PredictionRecord, StopRequest
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import compute_at_once
from sst2_ray.run.progress_actor import WAIT
from sst2_ray.storage import Storage
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.task import Task

HUNG_EXIT_CODE = 75
ASK_AGAIN_S = 0.05
BEAT_S = 0.5
LONG_TIMEOUT_S = 300.0
"""What tells nothing on its way (loading the model or the best weights, the export, its upload) may take this long,
however short --step-timeout-s is."""


def train_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's function on every worker; rank 0's return value is the run's result."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    compute_at_once()
    # Ray says how many cores are this worker's; torch may have been imported before that was known.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
    task: Task = payload["task"]
    me = ray.train.get_context()
    rank = me.get_world_rank()
    retry_for_s = task.config.storage_timeout_s
    run = Storage.open(payload["storage_uri"]).with_retries(retry_for_s).child(payload["run_path"])
    with _log_file(run, f"logs/attempt-{task.attempt}-rank-{rank}.log") as keep_log:
        os.environ.update(ray.get(payload["board"].secrets.remote()))
        tokens: dict[str, TokenArrays] = {name: ray.get(ref) for name, ref in payload["splits"].items()}
        device = ray.train.torch.get_device()
        table = ResultsTable(payload["storage_uri"], retry_for_s=retry_for_s)
        reporter = BoardReporter(payload["board"], task.trial_id, table, rank)
        reporter.tell_node(device, me.get_world_size())
        with _watchdog(reporter, task.config.step_timeout_s, keep_log):
            attempt = Attempt(
                task,
                tokens,
                run,
                reporter,
                texts=lambda: ray.get(payload["texts"]),
                device=device,
                rank=rank,
                world_size=me.get_world_size(),
            )
            return attempt.run()


@contextlib.contextmanager
def _log_file(run: Storage, name: str) -> Iterator[Callable[[], None]]:
    """Send this process's stdout and stderr, libraries' C code included, to a file of the run.

    Yields what puts the file on storage before the end, for a process that ends itself.
    """
    scratch = None if run.is_local else tempfile.TemporaryDirectory()
    path = Path(run.path(name)) if scratch is None else Path(scratch.name) / Path(name).name
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(1), os.dup(2)]

    def keep(storage: Storage = run) -> None:
        if scratch is not None:
            with contextlib.suppress(OSError):
                storage.upload(path, name)

    with path.open("ab", buffering=0) as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            faulthandler.enable(file)
            yield keep
        except BaseException:
            import traceback

            run = run.with_retries(0.0)  # it may be the storage that failed, and whoever waits wants to know of what
            with contextlib.suppress(OSError):  # a full disk must not hide what was raised
                file.write(traceback.format_exc().encode())
            raise
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            faulthandler.disable()
            for fd, target in zip(saved, (1, 2), strict=True):
                os.dup2(fd, target)
                os.close(fd)
            keep(run)
            if scratch is not None:
                scratch.cleanup()


@contextlib.contextmanager
def _watchdog(reporter: BoardReporter, timeout_s: float, keep_log: Callable[[], None]) -> Iterator[None]:
    """Tell the board where this rank is, and end this process where it makes no progress for `timeout_s`: Ray sees a
    lost worker and the run goes on from its checkpoint.

    A rank that waits in a collective for a stopped one ends itself; Ray then kills the stopped one with its group.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(min(BEAT_S, timeout_s / 10)):
            reporter.beat()
            limit = timeout_s if reporter.tells_progress else max(timeout_s, LONG_TIMEOUT_S)
            if time.monotonic() - reporter.moved > limit:
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                reporter.hung(limit)
                keep_log()
                os._exit(HUNG_EXIT_CODE)

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class BoardReporter:
    """training.loop.Reporter: tells the board, writes rank 0's records into the table, and keeps Ray Train informed."""

    INTERVAL_S = 0.5

    def __init__(self, board: Any, trial_id: str, table: ResultsTable, rank: int) -> None:
        self.board, self.trial_id, self.table, self.rank = board, trial_id, table, rank
        self.moved = time.monotonic()
        self.first_step_at: float | None = None
        self._told = 0.0
        self._train_loss: float | None = None
        self._place: tuple[int, str] = (0, "start-up")
        self._timer: Any = None
        self._asked_to_leave = False

    def progress(
        self, *, global_step: int, total_steps: int, epoch: float, train_loss: float | None, timer: Any
    ) -> None:
        self.moved = time.monotonic()
        self.first_step_at = self.first_step_at or time.time()
        self._place, self._timer = (global_step, "training"), timer
        self._train_loss = train_loss if train_loss is not None else self._train_loss
        if self.moved - self._told < self.INTERVAL_S and global_step < total_steps:
            return
        self._told = self.moved
        seconds = timer.training_seconds
        self._send(
            global_step=global_step,
            total_steps=total_steps,
            epoch=epoch,
            train_loss=self._train_loss,
            examples_per_sec=timer.num_examples / seconds if seconds else None,
            phase="training",
        )

    def alive(self) -> None:
        self.moved = time.monotonic()

    @property
    def tells_progress(self) -> bool:
        """Every step, and every batch of an evaluation."""
        return self._place[1] in ("training", "evaluation")

    def beat(self) -> None:
        """Called by the watchdog's thread. A board that does not answer is no reason to stop."""
        import ray

        step, phase = self._where()
        told = self.board.beat.remote(self.trial_id, self.rank, step, phase, time.monotonic() - self.moved)
        with contextlib.suppress(ray.exceptions.RayError):
            self._asked_to_leave = ray.get(told, timeout=5.0) or self._asked_to_leave

    def asked_to_leave(self) -> bool:
        return self._asked_to_leave

    def _where(self) -> tuple[int, str]:
        """Steps done, and the phase of the step or of the attempt."""
        step, phase = self._place
        inner = getattr(self._timer, "current", "start-up")
        return step, inner if phase == "training" and inner != "start-up" else phase

    def tell_node(self, device: Any, world_size: int) -> None:
        """Where this rank runs: for the table's provenance."""
        import ray
        import torch

        self._tell(
            "node",
            {
                "rank": self.rank,
                "world_size": world_size,
                "node": ray.get_runtime_context().get_node_id(),
                "address": ray.util.get_node_ip_address(),
                "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
                "cuda": torch.version.cuda,
                "actor": ray.get_runtime_context().current_actor,
                "placement": ray.util.get_current_placement_group(),
            },
        )

    def phase(self, name: str) -> None:
        """A stretch without steps begins: model load, export."""
        self.moved = time.monotonic()
        self._place = (self._place[0], name)
        self._send(global_step=self._place[0], phase=name)

    def _send(self, **values: Any) -> None:
        self.board.progress.remote(self.trial_id, self.rank, values)

    def _tell(self, kind: str, value: Any) -> None:
        self.board.event.remote(self.trial_id, kind, value)

    def note(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a full disk
            print(line, flush=True)
        self._tell("note", line)

    def micro_batches(self, most_tokens: int) -> None:
        """What an attempt that runs out of memory leaves behind, so that the next one takes half of it."""
        if self.rank == 0:
            self._tell("micro_batch_tokens", most_tokens)

    def evaluated(self, record: EpochRecord, *, is_best: bool) -> StopRequest | None:  # noqa: ARG002 - the display knows it
        import ray
        import ray.train

        self.moved = time.monotonic()
        if self.rank == 0:
            self.write_records([record])
            self._tell("record", record)
        # A barrier of all ranks; keeps Ray Train informed as well.
        ray.train.report(metrics_of(record))
        while (stop := ray.get(self.board.go_on.remote(self.trial_id, record.global_step))) == WAIT:
            time.sleep(ASK_AGAIN_S)
        self.moved = time.monotonic()
        return stop

    def write_records(self, records: list[EpochRecord]) -> None:
        if records:
            self.table.write("epochs", records)

    def write_predictions(self, records: list[PredictionRecord]) -> None:
        self.table.write("predictions", records)

    def hung(self, timeout_s: float) -> None:
        step, phase = self._where()
        line = f"rank {self.rank} made no progress for {timeout_s:.0f} s at step {step}, in {phase}"
        print(line, file=sys.stderr, flush=True)
        self._tell("hung", line)
        time.sleep(2 * BEAT_S)  # the line travels, and the others write their stacks, before this process ends


def metrics_of(record: EpochRecord) -> dict[str, Any]:
    """Plain scalars for ray.train.report."""
    return {k: v for k, v in dataclasses.asdict(record).items() if isinstance(v, int | float | str) or v is None}
