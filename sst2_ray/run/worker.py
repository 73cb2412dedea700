"""The function that runs on every training worker: the only glue between ray.train and the training loop."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sst2_ray.cgroups import num_usable_cpus
from sst2_ray.records import EpochRecord, PredictionRecord, StopRequest
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import compute_at_once, omp_num_threads
from sst2_ray.run.logs import LOGGER, epoch_line, step_line, worker_log
from sst2_ray.run.messages import Event, Heartbeat, HungRank, MicroBatchLimit, NodeFacts, Note, Progress, WorkerPayload
from sst2_ray.run.progress_actor import WAIT
from sst2_ray.run.recent import Position, Recent
from sst2_ray.training.attempt import Attempt
from sst2_ray.training.names import Phase
from sst2_ray.training.outcome import AttemptEnd, PhaseSeconds
from sst2_ray.training.throughput import PHASES, PhaseTimer

if TYPE_CHECKING:
    import torch
    from ray.actor import ActorHandle

HUNG_EXIT_CODE = 75
ASK_AGAIN_S = 0.05
HEARTBEAT_S = 0.5
STEP_LINE_EVERY_S = 10.0
"""Seconds between two lines of progress in a worker's log."""
LONG_TIMEOUT_S = 300.0
"""Phases that tell nothing on their way (loading the model or the best weights, the export, its upload) may take this
long, however short --step-timeout-s is."""


def train_worker(payload: WorkerPayload) -> AttemptEnd:
    """Train as one rank of Ray Train's worker group; what rank 0 returns reaches the driver."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    compute_at_once()
    # Ray says how many cores are this worker's; torch may have been imported before that was known. More threads than the
    # process has cores would wait for each other.
    torch.set_num_threads(min(omp_num_threads() or torch.get_num_threads(), num_usable_cpus()))
    task, context = payload.task, ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    run = payload.workspace.storage.child(payload.run_path)
    with worker_log(run, attempt=task.attempt, rank=rank) as log:
        os.environ.update(ray.get(payload.progress_actor.secrets.remote()))
        device = ray.train.torch.get_device()
        reporter = WorkerReporter(payload.progress_actor, task.trial_id, payload.workspace.table, rank)
        reporter.tell_node(device, world_size)
        with watchdog(reporter, task.config.step_timeout_s, log.keep):
            attempt = Attempt(
                task,
                {name: ray.get(ref) for name, ref in payload.splits.items()},
                run,
                reporter,
                texts=lambda: list(ray.get(payload.texts)),
                device=device,
                rank=rank,
                world_size=world_size,
            )
            return attempt.run()


@contextlib.contextmanager
def watchdog(reporter: WorkerReporter, timeout_s: float, keep_log: Callable[[], None]) -> Iterator[None]:
    """Send heartbeats, and end this process if it makes no progress for `timeout_s`.

    Ray then sees a lost worker, and the run goes on from its checkpoint. A rank that waits in a collective for a stopped
    one ends itself; Ray then kills the stopped one with its group.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(min(HEARTBEAT_S, timeout_s / 10)):
            reporter.heartbeat()
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


class WorkerReporter:
    """The AttemptReporter of a worker: posts to the progress actor, writes rank 0's records, keeps Ray Train informed."""

    INTERVAL_S = 0.5

    def __init__(self, actor: ActorHandle, trial_id: str, table: ResultsTable, rank: int) -> None:
        """Begin before the model is built. `actor`: a remote ProgressActor."""
        self.actor, self.trial_id, self.table, self.rank = actor, trial_id, table, rank
        self.moved = time.monotonic()
        self.first_step_at: float | None = None
        self._told = self._logged = 0.0
        self._recent = Recent()
        self._progress = Progress(phase=Phase.START_UP)
        self._saved_step: int | None = None
        self._timer: PhaseTimer | None = None
        self._preemption_requested = False

    # ---- called by the loop and the attempt

    def progress(
        self, *, global_step: int, total_steps: int, epoch: float, train_loss: float | None, timer: PhaseTimer
    ) -> None:
        """Note an optimizer step, and post it twice a second."""
        self.moved, self._timer = time.monotonic(), timer
        if self.first_step_at is None:
            self.first_step_at = time.time()
            self._progress = replace(
                self._progress, first_step_at=self.first_step_at, first_global_step=global_step - 1
            )
        self._progress = replace(self._progress, phase=Phase.TRAINING, global_step=global_step)
        if train_loss is not None:
            self._recent.add_loss(self.moved, train_loss)
        if self.moved - self._told < self.INTERVAL_S and global_step < total_steps:
            return
        self._told = self.moved
        self._recent.move(
            Position(
                at_s=self.moved,
                training_s=timer.training_seconds,
                global_step=global_step,
                num_examples=timer.num_examples,
            )
        )
        progress = replace(
            self._progress,
            total_steps=total_steps,
            epoch=epoch,
            train_loss=self._recent.loss,
            examples_per_sec=self._recent.examples_per_sec,
            seconds_left=self._recent.seconds_left(total_steps),
        )
        self._send(progress)
        if self.moved - self._logged >= STEP_LINE_EVERY_S or global_step == total_steps:
            self._logged = self.moved
            LOGGER.info("%s", step_line(progress))

    def alive(self) -> None:
        """Note a batch of an evaluation, or a wait for a rank that is watched itself."""
        self.moved = time.monotonic()

    def phase(self, phase: Phase) -> None:
        """Announce a stretch without steps."""
        self.moved = time.monotonic()
        LOGGER.info("%s", phase)
        self._send(replace(self._progress, phase=phase))

    def saved(self, global_step: int) -> None:
        """Note a checkpoint that is whole on storage; the next progress tells it."""
        self._saved_step = global_step

    def note(self, line: str) -> None:
        """Show one line to the user, and write it to this rank's log."""
        LOGGER.info("%s", line)
        self._post(Note(line=line))

    def micro_batches(self, most_tokens: int) -> None:
        """Tell how many tokens a worker computes at once: after an attempt that ran out of memory the next takes half."""
        self._post(MicroBatchLimit(tokens=most_tokens))

    def evaluated(self, record: EpochRecord, *, is_best: bool) -> StopRequest | None:
        """Write and post an evaluation; wait until it is known whether somebody asks to stop here."""
        import ray
        import ray.train

        self.moved = time.monotonic()
        LOGGER.info("%s", epoch_line(record, is_best=is_best))
        if self.rank == 0:
            self.write_records([record])
            self._post(record)
        # A barrier of all ranks; keeps Ray Train informed as well.
        ray.train.report(metrics_of(record))
        while (stop := ray.get(self.actor.go_on.remote(self.trial_id, record.global_step))) == WAIT:
            time.sleep(ASK_AGAIN_S)
        self.moved = time.monotonic()
        return stop

    def write_records(self, records: list[EpochRecord]) -> None:
        """Write evaluations to the results table."""
        if records:
            self.table.write("epochs", records)

    def write_predictions(self, records: list[PredictionRecord]) -> None:
        """Write predictions to the results table."""
        self.table.write("predictions", records)

    def preemption_requested(self) -> bool:
        """Tell whether the last heartbeat was answered with a request to leave."""
        return self._preemption_requested

    # ---- called by the worker and its watchdog

    def tell_node(self, device: torch.device, world_size: int) -> None:
        """Post where this rank runs."""
        import ray
        import torch

        context = ray.get_runtime_context()
        self._post(
            NodeFacts(
                rank=self.rank,
                world_size=world_size,
                node_id=context.get_node_id(),
                address=ray.util.get_node_ip_address(),
                gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
                cuda=torch.version.cuda,
                actor=context.current_actor,
                placement_group=ray.util.get_current_placement_group(),
            )
        )

    @property
    def tells_progress(self) -> bool:
        """Tell whether this phase moves at every step or batch."""
        return self._progress.phase in (Phase.TRAINING, Phase.EVALUATION)

    def heartbeat(self) -> None:
        """Send a heartbeat; called by the watchdog's thread. An actor that does not answer is no reason to stop."""
        import ray

        step, phase = self._where()
        heartbeat = Heartbeat(global_step=step, phase=phase, still_s=time.monotonic() - self.moved)
        answer = self.actor.heartbeat.remote(self.trial_id, self.rank, heartbeat)
        with contextlib.suppress(ray.exceptions.RayError):
            self._preemption_requested = ray.get(answer, timeout=5.0) or self._preemption_requested

    def hung(self, timeout_s: float) -> None:
        """Tell that this rank makes no progress, and where."""
        step, phase = self._where()
        line = f"rank {self.rank} made no progress for {timeout_s:.0f} s at step {step}, in {phase}"
        LOGGER.error("%s", line)
        self._post(HungRank(line=line))
        time.sleep(2 * HEARTBEAT_S)  # the line travels, and the others write their stacks, before this process ends

    def _where(self) -> tuple[int, Phase]:
        """Return the steps done, and the phase of the step or of the attempt."""
        progress = self._progress
        inner = Phase(self._timer.current) if self._timer is not None else Phase.START_UP
        is_inner = progress.phase is Phase.TRAINING and inner is not Phase.START_UP
        return progress.global_step, inner if is_inner else progress.phase

    def _send(self, progress: Progress) -> None:
        if self._timer is not None:
            seconds = PhaseSeconds(**{name: self._timer.seconds.get(name, 0.0) for name in PHASES})
            progress = replace(progress, phase_seconds=seconds, saved_step=self._saved_step)
        self._progress = progress
        self.actor.progress.remote(self.trial_id, self.rank, progress)

    def _post(self, event: Event) -> None:
        self.actor.post.remote(self.trial_id, event)


def metrics_of(record: EpochRecord) -> dict[str, int | float | str | None]:
    """Return the plain scalars of a record, for ray.train.report."""
    return {k: v for k, v in asdict(record).items() if isinstance(v, int | float | str) or v is None}
