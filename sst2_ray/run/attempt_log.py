"""The record of a trial's attempts: a row of the results table for each, and a mark below the run's folder."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from sst2_ray.config.train import hash_of, hashed_values
from sst2_ray.errors import FailureClass, RunFailedError
from sst2_ray.formatting import without_secret, without_secrets
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.messages import NodeFacts, Progress
from sst2_ray.run.prepare import RunInputs
from sst2_ray.run.progress_file import StoredProgress
from sst2_ray.run.provenance import collect_provenance
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.steps import committed_steps
from sst2_ray.training.outcome import Finished, PhaseSeconds


def now() -> dt.datetime:
    """Return the time in UTC."""
    return dt.datetime.now(dt.UTC)


def trial_row(inputs: RunInputs, *, experiment: str, trial_id: str, world_size: int) -> TrialRecord:
    """Fill in what is known of a trial before its first attempt: the same on its start rows, end rows and lost ones."""
    config, splits, info = inputs.config, inputs.splits, inputs.resolved.info
    row = TrialRecord(
        experiment=experiment,
        trial_id=trial_id,
        attempt=0,
        status=Status.RUNNING,
        written_at=now(),
        config_hash=config.config_hash,
        config_json=json.dumps(without_secrets(config.to_dict())),
        configuration_id=hash_of(hashed_values(config, without=("seed",))),
        model=config.model,
        model_kind=info.kind,
        model_source=info.source,
        model_revision=info.revision,
        random_weights=info.random_weights,
        attention=config.attention,
        data=without_secret(config.data),
        data_source=splits.source,
        data_fingerprint=splits.fingerprint,
        eval_split=splits.eval_split,
        num_classes=len(splits.classes),
        class_names_json=json.dumps(splits.classes.names, ensure_ascii=False),
        majority_share=splits.majority_share,
        num_train_rows=len(splits.train),
        num_dev_rows=len(splits.dev),
        chosen_by=config.metric,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        weight_decay=config.weight_decay,
        weight_decay_form=config.weight_decay_form,
        warmup_fraction=config.warmup_fraction,
        epochs=config.epochs,
        seed=config.seed,
        precision=config.precision,
        engine=config.engine,
        micro_batch_tokens=config.micro_batch_tokens,
        price_per_hour=config.price_per_hour,
    )
    return with_nodes(replace(row, world_size=world_size), ())


def with_nodes(row: TrialRecord, nodes: Sequence[NodeFacts]) -> TrialRecord:
    """State the code, the versions and the chip, and where the workers ran as far as they have said it."""
    gpu = next((node.gpu for node in nodes if node.gpu), None)
    found = collect_provenance(gpu_name=gpu, cuda_version=next((node.cuda for node in nodes), None))
    row = replace(
        row,
        git_commit=found["git_commit"],
        git_dirty=found["git_dirty"],
        versions_json=found["versions_json"],
        device=found["device"],
        chip=found["chip"],
    )
    if not nodes:
        return row
    places = [{"rank": node.rank, "address": node.address, "gpu": node.gpu} for node in nodes]
    return replace(row, world_size=nodes[0].world_size, node_types_json=json.dumps(places))


def with_facts(row: TrialRecord, end: Finished) -> TrialRecord:
    """State what only the workers of a finished attempt know."""
    model, speed, best, last = end.model, end.speed, end.best, end.last
    return replace(
        _with_phases(row, speed.phases),
        model_kind=model.kind,
        model_source=model.source,
        model_revision=model.revision,
        random_weights=model.random_weights,
        num_parameters=model.num_parameters,
        attention=model.attention,
        precision=model.precision,
        engine=model.engine,
        best_epoch=best.epoch,
        best_global_step=best.global_step,
        best_dev_accuracy=best.dev_accuracy,
        best_dev_f1=best.dev_f1,
        best_dev_loss=best.dev_loss,
        best_dev_macro_f1=best.dev_macro_f1,
        best_dev_mcc=best.dev_mcc,
        best_dev_auroc=best.dev_auroc,
        best_dev_pearson=best.dev_pearson,
        best_dev_spearman=best.dev_spearman,
        best_score=best.score,
        best_num_answered=best.num_answered,
        other_scores_json=json.dumps(end.others) if end.others else None,
        selection_accuracy=end.selection_accuracy,
        selection_score=end.selection_score,
        temperature=end.temperature,
        decision_threshold=end.decision_threshold,
        last_epoch=last.epoch,
        last_global_step=last.global_step,
        last_dev_accuracy=last.dev_accuracy,
        last_dev_f1=last.dev_f1,
        last_dev_loss=last.dev_loss,
        last_train_loss=end.last_train_loss,
        startup_seconds=speed.startup_seconds,
        examples_per_sec=speed.examples_per_sec,
        tokens_per_sec=speed.tokens_per_sec,
        padding_fraction=speed.padding_fraction,
        model_flop_utilization=speed.model_flop_utilization,
        peak_memory_gib=speed.peak_memory_gib,
        world_size=speed.world_size,
        micro_batch_tokens=speed.micro_batch_tokens,
    )


def resume_line(run: Storage) -> str | None:
    """Say where the next attempt of a trial goes on; None where it is the first. `run`: folder of the trial."""
    attempt = len(_marks(run))
    if attempt == 0:
        return None
    saved = max(committed_steps(run), default=None)
    if saved is None:
        return f"starts again from the beginning (attempt {attempt}): there is no checkpoint"
    return f"goes on at step {saved:,} (attempt {attempt})"


def _marks(run: Storage) -> list[str]:
    return [name for name in run.list("attempts") if name.endswith(".json")]


def with_progress(row: TrialRecord, progress: Progress | None) -> TrialRecord:
    """State how far an attempt got and where its time went, as rank 0 last told it; of a finished one see `with_facts`."""
    if progress is None or progress.first_step_at is None:
        return row
    begun = row.started_at.timestamp() if row.started_at else progress.first_step_at
    return replace(
        _with_phases(row, progress.phase_seconds),
        startup_seconds=progress.first_step_at - begun,
        first_global_step=progress.first_global_step,
        last_global_step=progress.global_step,
    )


def newest_checkpoint(run: Storage) -> int | None:
    """Return the step of a trial's newest checkpoint; None where there is none, or storage cannot be reached.

    `run`: folder of the trial.
    """
    try:
        return max(committed_steps(run.with_retries(0.0)), default=None)
    except OSError:
        return None


def with_checkpoint(row: TrialRecord, run: Storage) -> TrialRecord:
    """Count the steps of a lost attempt up to its newest checkpoint: its driver hears of steps twice a second only."""
    saved = newest_checkpoint(run)
    if row.last_global_step is None or saved is None:
        return row
    return replace(row, last_global_step=max(row.last_global_step, saved))


def _with_phases(row: TrialRecord, seconds: PhaseSeconds) -> TrialRecord:
    return replace(
        row,
        data_seconds=seconds.data,
        forward_seconds=seconds.forward,
        backward_seconds=seconds.backward,
        communication_seconds=seconds.communication,
        optimizer_seconds=seconds.optimizer,
        evaluation_seconds=seconds.evaluation,
        checkpoint_seconds=seconds.checkpoint,
    )


class AttemptLog:
    """The attempts of one trial, as storage keeps them."""

    def __init__(
        self,
        table: ResultsTable,
        run_storage: Storage,
        row: TrialRecord,
        *,
        show: Callable[[str], None],
        cost_share: float = 1.0,
    ) -> None:
        """Prepare to write; nothing is read or written.

        Args:
            table: takes the rows.
            run_storage: folder of the trial, takes the marks.
            row: what every row of the trial says, see `trial_row`.
            show: shows a line to the user.
            cost_share: of a machine's price that the trial pays, 0-1.
        """
        self.table, self.run_storage, self.row, self.show = table, run_storage, row, show
        self.cost_share = cost_share

    def timed(self, row: TrialRecord, seconds: float, *, num_nodes: int = 1) -> TrialRecord:
        """State how long an attempt took and what it cost; where it ran on is not known, on one machine at least."""
        hours, price = seconds / 3600 * num_nodes * self.cost_share, row.price_per_hour
        return replace(row, seconds=seconds, cost_usd=None if price is None else hours * price)

    def close_orphans(
        self,
        message: str = "its driver ended without a word",
        failure_class: FailureClass = FailureClass.WORKER_LOST,
        status: Status = Status.LOST,
    ) -> int:
        """Write end rows for earlier attempts that never ended; return the number of the next attempt."""
        marks = _marks(self.run_storage)
        for name in marks:
            attempt, mark = int(name[:-5]), self.run_storage.read_json(f"attempts/{name}")
            if mark["status"] == Status.RUNNING and not self._has_ended(attempt):
                started = replace(self.row, attempt=attempt, started_at=dt.datetime.fromisoformat(mark["started_at"]))
                row = replace(started, status=status, failure_class=failure_class, failure_message=message)
                self.end(self._as_last_written(row))
        return len(marks)

    def add_lost(self, message: str, failure_class: FailureClass = FailureClass.WORKER_LOST) -> None:
        """Write the row of a trial that ended before its first attempt."""
        row = replace(self.row, started_at=now(), status=Status.LOST, failure_class=failure_class)
        self.end(replace(row, failure_message=message))

    def _as_last_written(self, row: TrialRecord) -> TrialRecord:
        """State how far an attempt got by the progress that its driver has left on storage."""
        found = StoredProgress.read(self.run_storage)
        if found is None or found.attempt != row.attempt or row.started_at is None:
            return row
        seconds = (dt.datetime.fromisoformat(found.written_at) - row.started_at).total_seconds()
        row = self.timed(with_progress(row, found.progress), max(0.0, seconds))
        return with_checkpoint(row, self.run_storage)

    def earlier(self, attempt: int) -> list[TrialRecord]:
        """Read the end rows of the attempts before this one, in order."""
        if attempt == 0:
            return []
        found: list[TrialRecord] = self.table.records(
            "trials", experiment=self.row.experiment, trial_ids=[self.row.trial_id]
        )
        return sorted((row for row in found if row.attempt < attempt), key=lambda row: row.attempt)

    def _has_ended(self, attempt: int) -> bool:
        """Look for an end row: on a full disk there may have been room for the row and none for the mark."""
        row, columns = self.row, ["attempt", "status"]
        rows = self.table.read("trials", columns=columns, experiment=row.experiment, trial_ids=[row.trial_id])
        return any(row["attempt"] == attempt and row["status"] != Status.RUNNING for row in rows.to_pylist())

    def begin(self, attempt: int) -> TrialRecord:
        """Write the start row of an attempt and return it."""
        started = now()
        row = replace(self.row, attempt=attempt, status=Status.RUNNING, started_at=started, written_at=started)
        self._write(row)
        return row

    def end(self, row: TrialRecord) -> TrialRecord:
        """Write the end row of an attempt and return it with its time."""
        ended = now()
        row = replace(row, written_at=ended, ended_at=ended)
        self._write(row)
        return row

    def _write(self, row: TrialRecord) -> None:
        table, storage = self.table, self.run_storage
        if row.failure_class == FailureClass.STORAGE_ERROR:  # its workers have waited for it already
            table, storage = ResultsTable(table.storage_path), storage.with_retries(0.0)
        mark = {"status": row.status, "started_at": row.started_at.isoformat() if row.started_at else None}
        try:
            table.write("trials", [row])
            storage.write_json(f"attempts/{row.attempt}.json", mark)
        except (OSError, RunFailedError) as error:
            if row.status != Status.FAILED:
                raise
            # The reason of the failure says more than that this, too, found the disk full; the next start closes it.
            self.show(f"the failed attempt could not be recorded: {error}")
