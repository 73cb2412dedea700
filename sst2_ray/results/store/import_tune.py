"""Import of a Ray Tune experiment folder that this package did not write.

Only Tune's JSON files are read (params.json, result.json, experiment_state-*.json), never its pickles.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sst2_ray.config.train import hash_of
from sst2_ray.errors import FailureClass, InputError, did_you_mean
from sst2_ray.formatting import without_secret
from sst2_ray.records import EpochRecord, Status, TrialRecord
from sst2_ray.results.store.files import entries
from sst2_ray.storage import Storage

_SETTINGS = {
    "learning_rate": ("learning_rate", "lr"),
    "batch_size": ("batch_size", "global_batch_size", "train_batch_size", "per_device_train_batch_size"),
    "seed": ("seed", "random_seed"),
    "model": ("model", "model_name", "model_name_or_path", "checkpoint"),
    "epochs": ("epochs", "num_epochs", "num_train_epochs", "max_epochs"),
    "weight_decay": ("weight_decay", "wd"),
    "warmup_fraction": ("warmup_fraction", "warmup_ratio"),
    "data": ("data", "dataset", "task"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    column: (*names, *(f"train_loop_config/{name}" for name in names)) for column, names in _SETTINGS.items()
}
"""Column -> names it has in search spaces of Tune scripts, and of Ray Train's trainers; the first one present counts."""

METRICS: dict[str, tuple[str, ...]] = {
    "dev_accuracy": ("dev_accuracy", "eval_accuracy", "val_accuracy", "validation_accuracy", "accuracy", "acc"),
    "dev_f1": ("dev_f1", "eval_f1", "val_f1", "f1"),
    "dev_precision": ("dev_precision", "eval_precision", "val_precision", "precision"),
    "dev_recall": ("dev_recall", "eval_recall", "val_recall", "recall"),
    "dev_loss": ("dev_loss", "eval_loss", "val_loss", "validation_loss", "loss"),
    "train_loss": ("train_loss", "training_loss"),
    "epoch": ("epoch", "training_iteration"),
    "global_step": ("global_step", "step", "steps", "training_iteration"),
    "seconds": ("seconds", "time_total_s"),
    "examples_per_sec": ("examples_per_sec", "samples_per_second", "train_samples_per_second"),
}
"""Column -> names under which Tune scripts report it."""

_Json = dict[str, Any]
"""A JSON object of Tune, or fields of a record made from one."""
_STATUS = {"TERMINATED": Status.SUCCEEDED, "ERROR": Status.FAILED}
_INTEGERS = ("batch_size", "seed", "epochs")
_SECRET = re.compile(r"token(?!iz|s)|secret|password|passwd|(api|access)_?key|credential", re.IGNORECASE)
"""Names of secrets; tokenizer, tokenize and max_tokens are not."""
_FRACTIONS = ("dev_accuracy", "dev_f1", "dev_precision", "dev_recall")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Records read from an experiment folder."""

    trials: list[TrialRecord]
    epochs: list[EpochRecord]
    notes: list[str] = field(default_factory=list)
    """Skipped rows and assumptions, one line each."""


def parse_names(pairs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parse `column=name` pairs, which take precedence over the known names. Raises InputError."""
    names: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        column, separator, name = pair.partition("=")
        if not separator or not name:
            raise InputError(f"--map {pair!r}: give it as column=name, e.g. dev_accuracy=val/acc")
        if column not in SETTINGS and column not in METRICS:
            raise InputError(f"--map {pair!r}: no column {column!r}; {did_you_mean(column, (*SETTINGS, *METRICS))}")
        names[column] = (*names.get(column, ()), name)
    return names


def read_experiment(
    folder: str,
    *,
    experiment: str | None = None,
    eval_split: str | None = None,
    model: str | None = None,
    names: Mapping[str, tuple[str, ...]],
) -> Imported:
    """Read all trials of an experiment folder (a local path or a URI).

    Args:
        experiment: its name in the table; None: the folder's name.
        eval_split: what the accuracies were measured on; None: not known, so nothing else is ranked with it.
        model: the model of trials whose own settings do not name one.
        names: extra names of columns, tried before `SETTINGS` and `METRICS`; a slash leads into nested values.

    Raises:
        InputError: the folder is no Tune experiment, or nothing in it maps to an accuracy.
    """
    storage = Storage.open(folder, "import-tune")
    location = without_secret(folder).split("?")[0].rstrip("/")
    trial_folders = [entry.name for entry in entries(storage, "") if not entry.is_file]
    trial_folders = [name for name in trial_folders if storage.exists(f"{name}/params.json")]
    if not trial_folders:
        raise InputError(f"{location}: no Ray Tune experiment (no folder with a params.json in it)")
    experiment = experiment or re.sub(r"[^A-Za-z0-9._-]+", "-", storage.root.rstrip("/").split("/")[-1]) or "tune"
    states = _trial_states(storage)
    reader = _Reader(
        storage=storage, experiment=experiment, location=location, eval_split=eval_split, model=model, names=names
    )
    found = Imported(trials=[], epochs=[])
    for name in trial_folders:
        try:
            trial, points, note = reader.read_trial(name, states.get(name, {}))
        except (ValueError, TypeError, OSError) as error:
            found.notes.append(f"{location}/{name}: skipped, {str(error).splitlines()[0]}")
            continue
        found.trials.append(trial)
        found.epochs.extend(points)
        if note and note not in found.notes:
            found.notes.append(note)
    found.notes.extend(reader.notes_on_names())
    if not any(point.dev_accuracy is not None for point in found.epochs):
        reported = ", ".join(sorted(reader.reported)) or "nothing"
        raise InputError(
            f"{location}: no trial reports an accuracy (reported: {reported}); say --map dev_accuracy=NAME"
        )
    return found


@dataclass(kw_only=True)
class _Reader:
    storage: Storage
    experiment: str
    location: str
    eval_split: str | None
    model: str | None
    names: Mapping[str, tuple[str, ...]]
    reported: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    """Names of settings that some trial has, of those that were given."""

    def read_trial(self, folder: str, state: _Json) -> tuple[TrialRecord, list[EpochRecord], str]:
        config = self.storage.read_json(f"{folder}/params.json")
        results = list(self._results(folder))
        trial_id = str(state.get("trial_id") or (results[0].get("trial_id") if results else None) or folder)
        percent = any(_value(r, self._names_of("dev_accuracy", METRICS), 0.0) > 1.0 for r in results)
        note = f"{self.location}: accuracies above 1 were taken for per cent" if percent else ""
        points = [self._point(trial_id, result, 0.01 if percent else 1.0) for result in results]
        # A restored trial reports some steps twice: the later report counts.
        points = sorted({p.global_step: p for p in points}.values(), key=lambda p: p.global_step)
        return self._trial(trial_id, folder, config, state, points), points, note

    def _results(self, folder: str) -> Iterator[_Json]:
        if not self.storage.exists(f"{folder}/result.json"):
            return
        for line in self.storage.read_bytes(f"{folder}/result.json").decode().splitlines():
            try:
                result = json.loads(line)
            except ValueError:
                continue  # the unfinished last line of a killed trial
            self.reported.update(k for k, v in result.items() if isinstance(v, float))
            yield result

    def notes_on_names(self) -> list[str]:
        """Note each given name of a setting that no trial has."""
        missing = [(c, name) for c in SETTINGS for name in self.names.get(c, ()) if name not in self.present]
        return [f"{self.location}: no trial has a setting {name} (--map {column}={name})" for column, name in missing]

    def _names_of(self, column: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return (*self.names.get(column, ()), *known[column])

    def _point(self, trial_id: str, result: _Json, scale: float) -> EpochRecord:
        values = {column: _value(result, self._names_of(column, METRICS)) for column in METRICS}
        for column in _FRACTIONS:
            values[column] = None if values[column] is None else values[column] * scale
        stamp = result.get("timestamp")
        return EpochRecord(
            experiment=self.experiment,
            trial_id=trial_id,
            attempt=0,
            split="dev",
            written_at=dt.datetime.fromtimestamp(stamp, dt.UTC) if stamp else None,
            **{**values, "global_step": int(values["global_step"] or 0), "epoch": values["epoch"] or 0.0},
        )

    def _trial(self, trial_id: str, folder: str, config: _Json, state: _Json, points: list[EpochRecord]) -> TrialRecord:
        config = _masked(config)
        self.present.update(name for given in self.names.values() for name in given if _at(config, name) is not None)
        settings = {column: _setting(column, config, self._names_of(column, SETTINGS)) for column in SETTINGS}
        settings["model"] = settings["model"] or self.model
        started = state.get("start_time")
        failed = self.storage.exists(f"{folder}/error.txt")
        status = _STATUS.get(state.get("status", ""), Status.FAILED if failed else Status.LOST)
        return TrialRecord(
            experiment=self.experiment,
            trial_id=trial_id,
            attempt=0,
            status=status,
            written_at=dt.datetime.now(dt.UTC),
            failure_class=FailureClass.BUG if failed else None,
            failure_message=self._last_error_line(folder) if failed else None,
            started_at=dt.datetime.fromtimestamp(started, dt.UTC) if started else None,
            config_json=json.dumps(config),
            config_hash=hash_of(config),
            configuration_id=hash_of(_without(config, self._names_of("seed", SETTINGS))),
            eval_split=self.eval_split or f"{self.experiment} (evaluation data not named)",
            seconds=points[-1].seconds if points else None,
            examples_per_sec=points[-1].examples_per_sec if points else None,
            imported_from=f"{self.location}/{folder}",
            **settings,
            **best_and_last(points),
        )

    def _last_error_line(self, folder: str) -> str:
        lines = self.storage.read_bytes(f"{folder}/error.txt").decode(errors="replace").strip().splitlines()
        return lines[-1][:1000] if lines else ""


def best_and_last(points: list[EpochRecord]) -> _Json:
    """Compute a trial's best_* (by dev accuracy, the earlier of equals) and last_* fields from its evaluations."""
    scored = [point for point in points if point.dev_accuracy is not None]
    if not scored:
        return {}
    best, last = max(scored, key=lambda p: (p.dev_accuracy, -p.global_step)), scored[-1]
    values: _Json = {"last_train_loss": last.train_loss}
    for prefix, point in (("best", best), ("last", last)):
        values[f"{prefix}_epoch"], values[f"{prefix}_global_step"] = point.epoch, point.global_step
        for metric in ("dev_accuracy", "dev_f1", "dev_loss"):
            values[f"{prefix}_{metric}"] = getattr(point, metric)
    return values


def _trial_states(storage: Storage) -> dict[str, _Json]:
    """Read status and start of every trial, by its folder, from the newest experiment state; empty without one."""
    names = sorted(name for name in storage.list() if re.fullmatch(r"experiment_state-.*\.json", name))
    if not names:
        return {}
    states = {}
    for static, changing in storage.read_json(names[-1]).get("trial_data", []):
        state, runtime = json.loads(static), json.loads(changing)
        states[str(state.get("relative_logdir"))] = {
            "trial_id": state.get("trial_id"),
            "status": state.get("status"),
            "start_time": runtime.get("start_time"),
        }
    return states


def _at(values: _Json, name: str) -> Any:
    """Return the value that a name leads to; a slash leads into nested values. None: there is none."""
    value: object = values
    for part in [name] if name in values else name.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _without(config: _Json, names: Iterable[str]) -> _Json:
    """Copy a config without the values that names lead to."""
    kept = dict(config)
    for name in names:
        head, _, rest = name.partition("/")
        if name in kept:
            del kept[name]
        elif isinstance(kept.get(head), dict):
            kept[head] = _without(kept[head], [rest])
    return kept


def _value(values: _Json, names: tuple[str, ...], default: float | None = None) -> Any:
    """Return the first finite number among the names (see `_at`)."""
    for name in names:
        value = _at(values, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return default


def _masked(config: _Json) -> _Json:
    """Replace values that look like secrets, at any depth."""
    return {k: "***" if _SECRET.search(str(k)) else _masked_value(v) for k, v in config.items()}


def _masked_value(value: object) -> object:
    if isinstance(value, dict):
        return _masked(value)
    return [_masked_value(v) for v in value] if isinstance(value, list) else value


def _setting(column: str, config: _Json, names: tuple[str, ...]) -> Any:
    value = next((found for name in names if (found := _at(config, name)) is not None), None)
    if value is None or column in ("model", "data"):
        return None if value is None else str(value)
    return int(value) if column in _INTEGERS else float(value)
