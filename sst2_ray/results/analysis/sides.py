"""The two sides of a comparison: a configuration, run, model or sweep of a results table, or a file of predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.results.analysis import evidence
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration, RankedGroup, Run, model_label, rank
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics.scores import Array

_NAMES: dict[str, tuple[str, ...]] = {
    "row_id": ("row_id", "id", "idx", "index", "row"),
    "label": ("label", "labels", "gold", "target"),
    "predicted": ("predicted", "prediction", "predictions", "pred"),
    "probability": ("probability", "positive", "score", "prob"),
    "seed": ("seed", "run"),
    "text": ("text", "sentence"),
}
"""Columns of a file of predictions -> names that it may have; row_id, label and predicted are needed."""
_ANSWERS = ("label", "predicted")
"""Of these, the ones that hold classes, or the values of a regression."""


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


def find_side(name: str, storage_path: str) -> Side:
    """Resolve a side: a file of predictions, or a configuration id, run, sweep or model of a table. Raises InputError."""
    if Path(name).suffix.lower() in _READERS:
        return _from_file(Path(name))
    table = ResultsTable(storage_path)
    trials = table.read("trials", attempts="latest")
    groups = rank(trials)
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
        raise InputError(f"{name}: was evaluated on several data sets in {location}; name one of its runs, SWEEP/TRIAL")
    return found[0]


def _names_of(c: Configuration) -> list[str]:
    runs = [name for run in c.runs for name in (f"{run.experiment}/{run.trial_id}", run.experiment)]
    return [c.configuration_id, model_label(c.setting), *runs]


def _in_group(group: RankedGroup, name: str) -> tuple[Configuration, list[Configuration]] | None:
    """Find a configuration by its name, with those that it was chosen from."""
    for c in group.configurations:
        if c.configuration_id == name:
            return c, [c]
        for run in c.runs:
            if f"{run.experiment}/{run.trial_id}" == name:
                return Configuration(configuration_id=name, runs=(run,)), [c]
    by_name: dict[str, Callable[[Configuration], bool]] = {
        "model": lambda c: model_label(c.setting) == name or c.setting("model") == name,
        "experiment": lambda c: any(run.experiment == name for run in c.runs),
    }
    for belongs in by_name.values():
        members = [c for c in group.configurations if belongs(c)]
        if members:
            return members[0], members
    return None


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


def _read_json(path: Path) -> pa.Table:
    try:
        return pyarrow.json.read_json(path)
    except pa.ArrowInvalid:  # an array of objects instead of one object a line
        import json

        return pa.Table.from_pylist(json.loads(path.read_text(encoding="utf-8")))


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": pyarrow.csv.read_csv,
    ".tsv": lambda path: pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t")),
    ".parquet": pq.read_table,
    ".json": _read_json,
    ".jsonl": _read_json,
}


def _from_file(path: Path) -> Side:
    """Read predictions that others made: row id, label, prediction, and for several runs a column seed."""
    rows, column = _read_file(path)
    seeds = rows.column(column["seed"]).to_pylist() if "seed" in column else [0] * rows.num_rows
    numbers = {k: _numbers(rows, column.get(k), path) for k in ("row_id", "label", "predicted", "probability")}
    # Fractions are values; whole numbers are classes, unless they stand in for values everywhere.
    is_values = any((numbers[k] % 1 != 0).any() for k in _ANSWERS)
    parts: list[pa.Table] = []
    runs: list[Run] = []
    for number, seed in enumerate(dict.fromkeys(seeds)):
        mine = np.array([one == seed for one in seeds])
        order = np.argsort(numbers["row_id"][mine], kind="stable")
        columns = {k: v[mine][order] for k, v in numbers.items()}
        if len(np.unique(columns["row_id"])) < len(order):
            raise InputError(f"{path}: a row id occurs twice; several runs need a column seed")
        values = {"model": path.name, "best_dev_accuracy": float((columns["label"] == columns["predicted"]).mean())}
        runs.append(Run(experiment=str(path), trial_id=str(number), seed=number, values=values))
        keys = {"experiment": [str(path)] * len(order), "trial_id": [str(number)] * len(order)}
        if is_values:
            none = pa.nulls(len(order), pa.int64())
            columns |= {f"{k}_value": columns[k] for k in _ANSWERS} | dict.fromkeys(_ANSWERS, none)
        parts.append(pa.table({**keys, "split": ["dev"] * len(order), "global_step": [0] * len(order), **columns}))
    configuration = Configuration(configuration_id=str(path), runs=tuple(runs))
    found = evidence.collect(pa.concat_tables(parts), [configuration]) if runs else None
    if found is None or not found.samples:
        raise InputError(f"{path}: its runs do not answer the same rows, or labels or predictions are missing")
    texts = rows.column(column["text"]).to_pylist() if "text" in column else []
    by_row = dict(zip(numbers["row_id"].astype(int).tolist(), texts, strict=False))
    return Side(
        name=path.name, configuration=configuration, evidence=found, searched=None, chosen="", data=None, texts=by_row,
        origin=str(path),
    )  # fmt: skip


def _read_file(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read a file, and find which of its columns is which of `_NAMES`. Raises InputError."""
    try:
        rows = _READERS[path.suffix.lower()](path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as predictions ({str(error).splitlines()[0][:160]})") from None
    lower = {name.lower(): name for name in rows.column_names}
    column = {k: lower[n] for k, names in _NAMES.items() for n in reversed(names) if n in lower}
    lacking = [k for k in ("row_id", "label", "predicted") if k not in column]
    if lacking:
        raise InputError(
            f"{path}: has no column {' and no column '.join(lacking)} (its columns: {', '.join(rows.column_names)})"
        )
    return rows, column


def _numbers(rows: pa.Table, name: str | None, path: Path) -> Array:
    """Return a column as float [rows]; negative and positive become 0 and 1."""
    if name is None:
        return np.full(rows.num_rows, np.nan)
    values = rows.column(name).to_pylist()
    words = {"negative": 0.0, "positive": 1.0, "label_0": 0.0, "label_1": 1.0}
    try:
        return np.array([words.get(str(v).lower(), v) if v is not None else np.nan for v in values], dtype=float)
    except ValueError:
        raise InputError(f"{path}: column {name}: must hold numbers, or negative and positive") from None
