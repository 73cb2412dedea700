"""`sst2-ray gc | best`: delete what no run needs any more, and copy the best model to a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow.fs as pafs

from sst2_ray import formatting
from sst2_ray.config.fields import AlsoPositional, Folder, OldName, RunName
from sst2_ray.config.flags import parse
from sst2_ray.config.metrics import oriented, shown
from sst2_ray.errors import InputError
from sst2_ray.manage.runs import files_below, list_runs, run_folder
from sst2_ray.manage.stored_run import StoredRun
from sst2_ray.modeling.export.card import META_FILE, add_choice
from sst2_ray.records import Status, TrialRecord
from sst2_ray.results.analysis import evidence
from sst2_ray.results.analysis.ranking import RankedGroup, Run, rank
from sst2_ray.results.analysis.verdict import metric_words
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.storage import Storage
from sst2_ray.sweep.budget import read_num_trials
from sst2_ray.sweep.queue import Outcome
from sst2_ray.terminal import busy, console, print_line
from sst2_ray.training.names import CHECKPOINT_FOLDER, EXPORT_FOLDER, LAST_EXPORT_FOLDER


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Delete what no run needs any more: checkpoints of finished trials, Ray's bookkeeping, models without a row."""

    storage_path: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder or URI that runs and sweeps were written to."""
    dry_run: bool = False
    """List what would be deleted, and delete nothing."""


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """Copy the best model to a folder: of the best configuration, the best run."""

    storage_path: Annotated[Folder, AlsoPositional()] = "runs"
    """Folder or URI that runs and sweeps were written to."""
    out: Annotated[Folder, OldName("export")]
    """Local folder to make."""
    experiment: RunName | None = None
    """Only of this run or sweep; None: of all that were evaluated on the same sentences."""
    overwrite: bool = False
    """Replace the model that is in the folder."""


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A folder that can be deleted."""

    path: str
    """Path below the storage folder."""
    why: str
    num_bytes: int


def find_garbage(storage: Storage, runs: list[StoredRun]) -> Iterator[Garbage]:
    """Yield the folders that can be deleted; a run or sweep that may still be alive keeps all of its own."""
    for run in runs:
        if run.is_running:
            continue
        for folder, why in _folders(run):
            infos = files_below(storage, folder)
            if infos or storage.exists(folder):
                yield Garbage(path=folder, why=why, num_bytes=sum(info.size for info in infos))


def _folders(run: StoredRun) -> Iterator[tuple[str, str]]:
    for trial in run.trials:
        folder = run_folder(trial.experiment, trial.trial_id)
        yield f"{folder}/ray", "Ray's bookkeeping"
        # a sweep never repeats a trial that failed of a bug; the command of a single run resumes it where it failed
        if is_over(trial) if run.is_sweep else trial.status == Status.SUCCEEDED:
            yield f"{folder}/{CHECKPOINT_FOLDER}", f"{trial.status.replace('_', ' ')}: nothing resumes from them"
        if run.is_sweep and trial.status == Status.SUCCEEDED and trial.best_dev_accuracy is not None:
            yield f"{folder}/{LAST_EXPORT_FOLDER}", "dev has been scored"
            if trial.export_path is None:
                yield f"{folder}/{EXPORT_FOLDER}", "not among the models that are kept"


def is_over(trial: TrialRecord) -> bool:
    """Tell if a resumed sweep would leave this trial as it is."""
    return Outcome.of(trial).is_over


def main_gc(argv: list[str]) -> int:
    """Run `sst2-ray gc`."""
    config = parse(GcConfig, argv, prog="sst2-ray gc")
    storage = Storage.open(config.storage_path)
    with busy(f"reading {config.storage_path}"):
        found = list(find_garbage(storage, list_runs(config.storage_path)))
    for item in found:
        print(f"{item.path}: {formatting.size(item.num_bytes)}, {item.why}")
        if not config.dry_run:
            storage.delete(item.path)
    total = f"{formatting.count(len(found), 'folder')}, {formatting.size(sum(item.num_bytes for item in found))}"
    print(f"dry run: {total} can go, nothing was deleted" if config.dry_run else f"{total} deleted")
    return 0


def main_best(argv: list[str]) -> int:
    """Run `sst2-ray best`."""
    config = parse(BestConfig, argv, prog="sst2-ray best")
    with busy(f"reading {config.storage_path}"):
        group, run = copy_best(config)
    seeds = f"mean of {formatting.count(len(group.best.runs), 'seed')}"
    score = f"{shown(group.chosen_by, group.score(group.best))} {metric_words(group.chosen_by, group.metric)}"
    out = console()
    print_line(out, f"{group.best.label}: {score} ({seeds}), {group.chosen}", highlight=False)
    its = f"its best run, {run.trial_id} of {run.experiment}, is in {config.out} (README.md: its card)"
    print_line(out, its, highlight=False)
    for line in _left_words(config):
        print_line(out, line, highlight=False)
    return 0


def _left_words(config: BestConfig) -> Iterator[str]:
    """Yield a line where trials of the chosen sweep have not run: what is best may still change."""
    planned = read_num_trials(Storage.open(config.storage_path).child(config.experiment)) if config.experiment else None
    if planned is not None:
        rows = ResultsTable(config.storage_path).read(
            "trials", columns=["trial_id"], experiment=config.experiment, attempts="latest"
        )
        if rows.num_rows < planned:
            yield f"{planned - rows.num_rows} of {planned} trials have not run: another may be better"


def copy_best(config: BestConfig) -> tuple[RankedGroup, Run]:
    """Copy the best model to a folder that appears whole or not at all.

    Returns the ranking, and the run that the model is of. Raises InputError.
    """
    if "://" in config.out:
        raise InputError(f"--out {config.out}: is no folder of this machine; name one, and copy it from there")
    target = Path(config.out).expanduser()
    if target.exists() and not config.overwrite:
        raise InputError(f"--out {target}: exists; choose another folder, or pass --overwrite")
    if target.exists() and not (target / META_FILE).is_file():
        raise InputError(f"--out {target}: is no model that could be replaced; choose another folder")
    storage = Storage.open(config.storage_path)
    group = _ranking(config)
    run = _exported_run(storage, group)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a copy that was interrupted
    partial.mkdir(parents=True)
    pafs.copy_files(
        storage.path(f"{run_folder(run.experiment, run.trial_id)}/{EXPORT_FOLDER}"),
        str(partial),
        source_filesystem=storage.filesystem,
        destination_filesystem=pafs.LocalFileSystem(),
    )
    card = partial / "README.md"
    if card.is_file():
        card.write_text(add_choice(card.read_text(encoding="utf-8"), _choice(config, group, run)), encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return group, run


def _choice(config: BestConfig, group: RankedGroup, run: Run) -> str:
    """Describe for a card how a model was chosen, and what its configuration is worth on new seeds and sentences."""
    best, reported = group.best, group.reported(group.best)
    seeds = formatting.count(len(best.runs), "seed")
    lines = [f"It is the {group.chosen}: the best run, seed {run.seed}, of {best.label}."]
    estimate = evidence.load(ResultsTable(config.storage_path), [best], "dev").estimate(best)
    if estimate is not None and reported == "best_dev_accuracy":
        low, high = formatting.percent(estimate.interval.low), formatting.percent(estimate.interval.high)
        new = "new seeds and new sentences" if estimate.covers_seeds else "new sentences under this one seed"
        lines.append(
            f"The configuration's accuracy on {group.eval_split}: {formatting.percent(estimate.value)} % (mean of {seeds}), "
            f"95 % interval for {new} {low} to {high}; the one in the table is Wilson's, of this run alone."
        )
    if len(best.runs) > 1:
        lines.append(
            "The figures above are of the best of these runs, so they are above what another seed would reach."
        )
    if group.metric == "best_dev_accuracy" and len(group.configurations) > 1:
        lines.append("The sentences that it was chosen on are those of the figures, which are therefore optimistic.")
    return "\n".join(lines)


def _ranking(config: BestConfig) -> RankedGroup:
    trials = ResultsTable(config.storage_path).read("trials", experiment=config.experiment, attempts="latest")
    groups = rank(trials)
    if not groups:
        where = f" of {config.experiment}" if config.experiment else ""
        raise InputError(f"{config.storage_path}: no trial{where} succeeded yet")
    if len(groups) > 1:
        names = sorted({run.experiment for group in groups for c in group.configurations for run in c.runs})
        raise InputError(
            f"{config.storage_path}: holds several studies, whose runs were chosen on different sentences and cannot be ranked together; "
            f"choose one with --experiment ({', '.join(names[:8])})"
        )
    return groups[0]


def _exported_run(storage: Storage, group: RankedGroup) -> Run:
    """Return the best run of the best configuration that still has its model. Raises InputError if none has."""

    def order(run: Run) -> tuple[float, int]:
        return -oriented(group.chosen_by, float(run.values[group.metric])), run.seed or 0

    for run in sorted(group.best.runs, key=order):
        if storage.exists(f"{run_folder(run.experiment, run.trial_id)}/{EXPORT_FOLDER}"):
            return run
    raise InputError(
        f"{group.best.label}: none of its runs has its model left; run it again with --keep-models 1 or more"
    )
