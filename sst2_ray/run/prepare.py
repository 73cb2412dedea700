"""What the driver does before anything is started: rows, model, tokenizer, tokens. Wrong input stops here."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.leaks import check_known_leak
from sst2_ray.data.load import Rows, Splits, load_splits
from sst2_ray.data.tokens import SentenceTokenizer, TokenArrays
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.modeling.sources import ResolvedModel, resolve_model
from sst2_ray.records import TrialRecord
from sst2_ray.run.planning.placement import check_batch
from sst2_ray.storage import Storage
from sst2_ray.training.names import CHECKPOINT_FOLDER


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A config whose data and model were found."""

    config: TrainConfig
    splits: Splits
    resolved: ResolvedModel
    allowed_leak: str | None
    """What `--allow-leak` let pass."""

    @property
    def corpora(self) -> tuple[str, ...]:
        """Named data sets behind the training rows."""
        return (self.splits.corpus,) if self.splits.corpus else ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Checked, and tokenized."""

    checked: Checked
    tokenizer_json: str
    vocab_size: int
    tokens: dict[str, TokenArrays]
    """train, dev and, where a part of train is held out, selection."""

    def notes(self) -> list[str]:
        """One-line remarks about data and model for the plan."""
        truncated = {name: t.num_truncated for name, t in self.tokens.items() if t.num_truncated}
        cut = ", ".join(f"{count} of {len(self.tokens[name])} {name}" for name, count in truncated.items())
        limit = self.checked.resolved.max_length
        said = [f"{cut} sentences are longer than {limit} tokens and truncated"] if cut else []
        leak = [self.checked.allowed_leak] if self.checked.allowed_leak else []
        return [*self.checked.splits.notes, *leak, *self.checked.resolved.info.notes, *said]


def check(config: TrainConfig) -> Checked:
    """Find and check data and model. Nothing is written. Raises InputError with one line."""
    splits = load_splits(config)
    check_batch(config, len(splits.train))
    resolved = resolve_model(config)
    leak = check_known_leak(resolved.info.trained_on, splits.corpus, allow=config.allow_leak)
    return Checked(config=config, splits=splits, resolved=resolved, allowed_leak=leak)


def prepare(checked: Checked) -> Prepared:
    """Tokenize every split, once."""
    from sst2_ray.modeling.tokenizers import load_tokenizer, tokenizer_to_json

    splits = checked.splits
    tokenizer = load_tokenizer(checked.resolved, lambda: splits.train.texts)
    rows: dict[str, Rows | None] = {"train": splits.train, "dev": splits.dev, "selection": splits.selection}
    tokenize = SentenceTokenizer(tokenizer, checked.resolved.max_length)
    tokens = {name: tokenize(r) for name, r in rows.items() if r is not None}
    return Prepared(
        checked=checked, tokenizer_json=tokenizer_to_json(tokenizer), vocab_size=len(tokenizer), tokens=tokens
    )


def check_run(storage: Storage, checked: Checked) -> dict[str, Any] | None:
    """The result of a run that is already there and finished; None where there is work to do.

    Raises InputError where the name belongs to a run with another config or other data, or to one that is damaged.
    """
    config = checked.config
    run = storage.child(config.run_name)
    there = _read_own(run, config, "config.json", keys={"config", "config_hash"})
    if there is None:
        return None
    if there["config_hash"] != config.config_hash:
        raise InputError(
            f"--name {config.run_name}: {run.root} holds a run with another config ({_difference(there['config'], config)}); "
            "choose another name, or delete that folder"
        )
    check_same_data(config.run_name, run, there, checked)
    result = _read_own(run, config, "result.json", keys={"name", "status"})
    if result is None:
        _require_whole_checkpoint(run, config)
    return result


def check_same_data(name: str, folder: Storage, there: dict[str, Any], checked: Checked) -> None:
    """Raises InputError where a run or sweep was started, as its config.json `there` says, with other data."""
    fingerprint = checked.splits.fingerprint
    before = there.get("data_fingerprint", fingerprint)  # those of older versions have none
    if before != fingerprint:
        raise InputError(
            f"--name {name}: the data changed since {folder.root} was started (fingerprint {before} -> {fingerprint}); "
            "choose another name, or delete that folder"
        )


def run_description(checked: Checked) -> dict[str, Any]:
    """What a run's config.json says: its config, and the data that it was started with."""
    config = checked.config
    return {
        "config": config.to_dict(),
        "config_hash": config.config_hash,
        "data_fingerprint": checked.splits.fingerprint,
    }


def _read_own(run: Storage, config: TrainConfig, name: str, *, keys: set[str]) -> dict[str, Any] | None:
    """A JSON file that a run left, with at least these keys; None where there is none."""
    if not run.exists(name):
        return None
    try:
        value = run.read_json(name)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not keys <= set(value):
        raise InputError(
            f"--name {config.run_name}: {run.path(name)} is damaged; choose another name, or delete that folder"
        )
    return value


def _require_whole_checkpoint(run: Storage, config: TrainConfig) -> None:
    """A run that has checkpoints goes on from one, or is refused: starting anew would delete what may be repaired."""
    if not run.list(CHECKPOINT_FOLDER):
        return
    from sst2_ray.training.checkpoint import files as ckpt

    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            whole = ckpt.newest_valid(run.with_retries(), Path(scratch), reasons.append)
        except OSError as error:
            raise RunFailedError(
                f"--name {config.run_name}: its checkpoints in {run.root} cannot be read "
                f"({' '.join(str(error).split())[:160]}); they stay: give the same command when they can be",
                FailureClass.STORAGE_ERROR,
            ) from None
    if whole is None and reasons:
        raise InputError(
            f"--name {config.run_name}: none of its {len(reasons)} checkpoints is whole "
            f"({reasons[0].split(';')[0]}); choose another name, or delete {run.root} to start anew"
        )


def _difference(there: dict[str, Any], config: TrainConfig) -> str:
    """The first few fields that differ, there -> here."""
    here = config.to_dict()
    affects = {f.name for f in dataclasses.fields(TrainConfig) if f.metadata.get("affects_numbers", True)}
    changed = [f"{k} {there.get(k)} -> {here[k]}" for k in here if k in affects and there.get(k) != here[k]]
    return ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")


def identity(checked: Checked, *, experiment: str, trial_id: str) -> dict[str, Any]:
    """The fields of TrialRecord that say what a trial is; the same on its start row, its end row and a lost one's."""
    from sst2_ray.config.train import hash_of

    config, splits = checked.config, checked.splits
    affecting = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(TrainConfig)
        if f.metadata.get("affects_numbers", True) and f.name != "seed"
    }
    names = {f.name for f in dataclasses.fields(TrialRecord)}
    fields = {k: v for k, v in config.to_dict().items() if k in names}
    import json

    return {
        **fields,
        "experiment": experiment,
        "trial_id": trial_id,
        "config_hash": config.config_hash,
        "config_json": json.dumps(config.to_dict()),
        "configuration_id": hash_of(affecting),
        "model_kind": checked.resolved.info.kind,
        "model_source": checked.resolved.info.source,
        "model_revision": checked.resolved.info.revision,
        "random_weights": checked.resolved.info.random_weights,
        "data_fingerprint": splits.fingerprint,
        "eval_split": splits.eval_split,
        "num_train_rows": len(splits.train),
        "num_dev_rows": len(splits.dev),
    }
