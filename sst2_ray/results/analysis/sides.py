"""The two sides of a comparison: a configuration, run, model or sweep of a results table, or a file of predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.records import Status
from sst2_ray.results.analysis import evidence, prediction_files
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup, Run, model_label, rank
from sst2_ray.results.store.table import ResultsTable


@dataclass(frozen=True, kw_only=True)
class Side:
    """A side of a comparison."""

    name: str
    """Name that the user gave."""
    configuration: Configuration
    evidence: Evidence
    """Answers to dev of all configurations of its study."""
    searched: Sequence[Configuration] | None
    """The configurations that it was chosen from on dev; None: it was named, or chosen elsewhere."""
    chosen: str
    """Disclosure of the choice; empty when it was named."""
    data: str | None
    """Evaluation data; None: not known."""
    texts: dict[int, str]
    origin: str
    """Results table or file that it is of."""
    chosen_by: str | None = None
    """Metric that its epochs, and it among others, were chosen by; None: not known."""


def find_side(name: str, storage_path: str, experiment: str | None = None) -> Side:
    """Resolve a side: a file of predictions, or a configuration id, run, sweep or model of a table, or of one run or sweep in it.

    Raises InputError.
    """
    if Path(name).suffix.lower() in prediction_files.READERS:
        return _from_file(Path(name))
    table = ResultsTable(storage_path)
    trials = table.read("trials", experiment=experiment, attempts="latest")
    if experiment is not None and not trials.num_rows:
        table.check_experiment(experiment)
    groups = rank(trials)
    if not any(_in_group(group, name) for group in groups):
        groups = rank(_without_reruns(trials, name))
    if not groups:
        raise InputError(f"{name}: no file of predictions, and no trial succeeded in {table.location}")
    group, configuration, searched = _in_groups(groups, name, table.location)
    members = [c for c in group.configurations if c.configuration_id != configuration.configuration_id]
    stored = evidence.load(table, [configuration, *members], "dev")
    chosen_on_dev = not group.on_selection
    many = len(searched) > 1
    return Side(
        name=name,
        configuration=configuration,
        evidence=stored,
        searched=searched if many and chosen_on_dev else None,
        chosen=dataclasses.replace(group, configurations=tuple(searched)).chosen if many else "",
        data=group.eval_split,
        texts=_texts(table, configuration),
        origin=table.location,
        chosen_by=group.chosen_by,
    )


def _in_groups(
    groups: Sequence[RankedGroup], name: str, location: str
) -> tuple[RankedGroup, Configuration, list[Configuration]]:
    """Find a side in the rankings of a table. Raises InputError when it is in none or in several."""
    found = [(group, *hit) for group in groups if (hit := _in_group(group, name)) is not None]
    if not found:
        names = {n for group in groups for c in group.configurations for n in _names_of(c)}
        raise InputError(f"{name}: not in {location}; {did_you_mean(name, names)}")
    if len({(group.eval_split, group.data_fingerprint) for group, *_ in found}) > 1:
        runs = sorted({run.experiment for _, one, _ in found for run in one.runs})
        raise InputError(
            f"{name}: was evaluated on several sets of sentences in {location} ({', '.join(runs[:5])}); choose one with "
            f"--experiment, e.g. --experiment {runs[0]}, or name one of its runs, SWEEP/TRIAL"
        )
    return found[0]


def _names_of(c: Configuration) -> list[str]:
    runs = [name for run in c.runs for name in (f"{run.experiment}/{run.trial_id}", run.experiment)]
    return [c.configuration_id, model_label(c.setting), *runs]


def _names_of_run(experiment: str, trial_id: str) -> tuple[str, ...]:
    """Return the names that stand for a run alone: SWEEP/TRIAL, of a single run also its own."""
    return (f"{experiment}/{trial_id}", *([experiment] if experiment == trial_id else []))


def _in_group(group: RankedGroup, name: str) -> tuple[Configuration, list[Configuration]] | None:
    """Find a configuration by its name, with those that it was chosen from."""
    of_model = [c for c in group.configurations if name in (model_label(c.setting), c.setting("model"))]
    for c in group.configurations:
        if c.configuration_id == name:
            return c, [c]
        for run in c.runs:
            if name in _names_of_run(run.experiment, run.trial_id) and not of_model:
                return Configuration(configuration_id=name, runs=(run,)), [c]
    members = of_model or [c for c in group.configurations if any(run.experiment == name for run in c.runs)]
    return (members[0], members) if members else None


def _without_reruns(trials: pa.Table, name: str) -> pa.Table:
    """Leave out the other runs of a named run's configuration and seed, of which the last one would count in its place."""
    keys = ("configuration_id", "data_fingerprint", "eval_split", "seed")
    rows = trials.select(["experiment", "trial_id", "status", *keys]).to_pylist()
    names = [_names_of_run(row["experiment"], row["trial_id"]) for row in rows]
    is_named = [name in own and row["status"] == Status.SUCCEEDED for own, row in zip(names, rows, strict=True)]
    same = [[row[key] for key in keys] for row, this in zip(rows, is_named, strict=True) if this]
    kept = [this or [row[key] for key in keys] not in same for row, this in zip(rows, is_named, strict=True)]
    return trials.filter(pa.array(kept))


def _texts(table: ResultsTable, configuration: Configuration) -> dict[int, str]:
    run = configuration.runs[0]
    rows = table.read(
        "predictions",
        columns=["row_id", "text"],
        experiment=run.experiment,
        trial_ids=[run.trial_id],
        attempts="latest",
        filter=(pc.field("split") == "dev") & pc.field("text").is_valid(),
    )
    return dict(zip(rows.column("row_id").to_pylist(), rows.column("text").to_pylist(), strict=True))


def _from_file(path: Path) -> Side:
    """Read predictions that others made. Raises InputError."""
    rows = prediction_files.read(path)
    configuration, parts = Configuration(configuration_id=str(path), runs=()), []
    for number, seed in enumerate(dict.fromkeys(rows.seed)):
        mine = np.array([one == seed for one in rows.seed])
        order = np.argsort(rows.row_id[mine], kind="stable")
        columns = {k: getattr(rows, k)[mine][order] for k in ("row_id", "label", "predicted", "probability")}
        if len(np.unique(columns["row_id"])) < len(order):
            raise InputError(f"{path}: a row id occurs twice; several runs need a column seed")
        values = {"model": path.name, "best_dev_accuracy": float((columns["label"] == columns["predicted"]).mean())}
        run = Run(experiment=str(path), trial_id=str(number), seed=number, values=values)
        configuration = dataclasses.replace(configuration, runs=(*configuration.runs, run))
        keys = {"experiment": [str(path)] * len(order), "trial_id": [str(number)] * len(order)}
        if rows.is_values:
            classes = ("label", "predicted")
            none = pa.nulls(len(order), pa.int64())
            columns |= {f"{k}_value": columns[k] for k in classes} | dict.fromkeys(classes, none)
        parts.append(pa.table({**keys, "split": ["dev"] * len(order), "global_step": [0] * len(order), **columns}))
    found = evidence.collect(pa.concat_tables(parts), [configuration])
    if lack := found.lack(configuration, "pearson" if rows.is_values else "accuracy"):
        raise InputError(f"{path}: cannot be compared: {lack.of_it}")
    texts = dict(zip(rows.row_id.astype(int).tolist(), rows.text, strict=False))
    return Side(
        name=path.name, configuration=configuration, evidence=found, searched=None, chosen="", data=None, texts=texts,
        origin=str(path),
    )  # fmt: skip
