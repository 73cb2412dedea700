"""Preparation by the driver, before anything is started: find data and model, look at an earlier run."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.config.train import TrainConfig, numeric_fields
from sst2_ray.data.kept_splits import splits_of
from sst2_ray.data.leaks import check_known_leak
from sst2_ray.data.rows import Splits
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import FailureClass, InputError, RunFailedError
from sst2_ray.formatting import without_secrets
from sst2_ray.modeling.sources import ResolvedModel, resolve_model
from sst2_ray.own_files import CONFIG_FILE, read_own
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.model_size import ModelSize
from sst2_ray.storage import Storage
from sst2_ray.training.names import CHECKPOINT_FOLDER
from sst2_ray.training.step_counts import total_steps


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """The token arrays of every split, and the tokenizer that made them."""

    tokenizer_json: str
    vocab_size: int
    tokens: dict[str, TokenArrays]
    """train, dev, where a part of train is held out selection, and further evaluation splits by their names."""
    size: ModelSize
    """Size of the encoder: found where transformers is imported anyway."""
    folder: Path | None = None
    """Folder on the driver in which the tokens are kept; None: they are in memory."""


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """A config with the data and the model that it names; `tokenizing.prepare` adds the tokens."""

    config: TrainConfig
    splits: Splits
    resolved: ResolvedModel
    allowed_leak: str | None
    """Leak that `--allow-leak` let pass, in one line."""
    tokenized: Tokenized | None = None

    @property
    def corpora(self) -> tuple[str, ...]:
        """Named data sets behind the training rows."""
        return (self.splits.corpus,) if self.splits.corpus else ()

    @property
    def tokens(self) -> dict[str, TokenArrays]:
        """Token arrays by split."""
        return self.made.tokens

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer that made the tokens."""
        return self.made.tokenizer_json

    @property
    def vocab_size(self) -> int:
        """Entries of the tokenizer."""
        return self.made.vocab_size

    def with_tokens(self, tokenized: Tokenized) -> RunInputs:
        """Return these inputs with their tokens."""
        return dataclasses.replace(self, tokenized=tokenized)

    @property
    def made(self) -> Tokenized:
        """Tokens and tokenizer. `tokenizing.prepare` must have made them."""
        assert self.tokenized is not None, "prepare() comes first"
        return self.tokenized

    def notes(self) -> list[str]:
        """Return one-line remarks about data, model and time-outs for the plan."""
        truncated = {name: t.num_truncated for name, t in self.tokens.items() if t.num_truncated}
        cut = ", ".join(f"{count} of {len(self.tokens[name])} {name}" for name, count in truncated.items())
        limit = self.resolved.max_length
        units = "pairs" if self.splits.text_columns else "sentences"
        said = [f"{cut} {units} are longer than {limit} tokens and truncated"] if cut else []
        leak = [self.allowed_leak] if self.allowed_leak else []
        if total_steps(self.config, len(self.tokens["train"])) == 1 and self.config.warmup_fraction:
            said.append("the only optimizer step is one of warm-up, whose learning rate is 0: nothing is learned")
        if (wait_s := self.config.storage_timeout_s) > (limit_s := self.config.step_timeout_s):
            said.append(
                f"--storage-timeout-s {wait_s:g}: storage is tried again for so long, but a worker that takes no step "
                f"meanwhile counts as hung after --step-timeout-s {limit_s:g}: raise that as well"
            )
        return [*self.splits.notes, *leak, *self.resolved.info.notes, *said]


def check(config: TrainConfig) -> RunInputs:
    """Find and check data and model. Nothing is written. Raises InputError with one line."""
    splits = splits_of(config)
    check_batch(config, len(splits.train))
    resolved = resolve_for(config, splits)
    leak = check_known_leak(resolved.info.trained_on, splits.corpus, allow=config.allow_leak)
    return RunInputs(config=config, splits=splits, resolved=resolved, allowed_leak=leak)


def resolve_for(config: TrainConfig, splits: Splits) -> ResolvedModel:
    """Resolve the model that a config names, with a head for the classes of the data.

    Raises InputError, also where the data do not have the metric that the run is to be chosen by.
    """
    if config.metric == "auroc" and len(splits.classes) != 2:
        raise InputError(f"--choose-by auroc: needs two classes; --data {config.data} has {len(splits.classes)}")
    resolved = resolve_model(config)
    info = dataclasses.replace(resolved.info, labels=splits.classes.names, text_columns=splits.text_columns)
    return dataclasses.replace(resolved, info=info)


def check_batch(config: TrainConfig, num_train_rows: int) -> None:
    """Check that a global batch can be made and shared out. Raises InputError."""
    if config.batch_size > num_train_rows:
        raise InputError(
            f"--batch-size {config.batch_size}: larger than the {num_train_rows} training rows; use at most {num_train_rows}"
        )
    most = max(config.num_workers or 0, config.max_workers or 0)
    if config.batch_size < most:
        raise InputError(
            f"--batch-size {config.batch_size} --num-workers {most}: some workers would never have a row; "
            f"use at most {config.batch_size} workers"
        )


# ---- a run of the same name that is there already


def check_run(storage: Storage, inputs: RunInputs) -> dict[str, Any] | None:
    """Look at an earlier run of the same name.

    Returns:
        The result of one that has finished; None where there is work to do.

    Raises:
        InputError: The name belongs to a run with another config or other data, or to one that is damaged.
    """
    config = inputs.config
    run = storage.child(config.run_name)
    there = read_own(run, CONFIG_FILE, of=f"--name {config.run_name}", keys=("config", "config_hash"))
    if there is None:
        check_unused(config, config.run_name)
        return None
    if there["config_hash"] != config.config_hash:
        raise InputError(
            f"--name {config.run_name}: {run.root} holds a run with another config ({_difference(there['config'], config)}); "
            "choose another name"
        )
    check_same_data(config.run_name, run, there, inputs)
    result = read_own(run, "result.json", of=f"--name {config.run_name}", keys=("name", "status"))
    if result is None:
        _require_whole_checkpoint(run, config)
    return result


def check_same_data(name: str, folder: Storage, there: dict[str, Any], inputs: RunInputs) -> None:
    """Compare the data with what a run or sweep was started with. Raises InputError where they differ.

    Args:
        name: of the run or sweep.
        folder: of the run or sweep.
        there: its config.json.
        inputs: with the data as they are now.
    """
    fingerprint = inputs.splits.fingerprint
    before = there.get("data_fingerprint", fingerprint)  # those of older versions have none
    if before != fingerprint:
        raise InputError(
            f"--name {name}: the data changed since {folder.root} was started (fingerprint {before} -> {fingerprint}); "
            "choose another name"
        )


def check_unused(config: TrainConfig, name: str) -> None:
    """Refuse the name of results whose folder is gone: a table keeps them, and they would pass for those of a new run.

    Args:
        config: with the storage.
        name: of a run or sweep that has no folder.

    Raises:
        InputError: The results table holds rows of that name.
    """
    table, num_rows = ResultsTable(config.storage_path), 0
    with contextlib.suppress(OSError):  # storage that cannot be read is refused when it is tried out
        num_rows = table.read("trials", columns=["experiment"], experiment=name).num_rows
    if num_rows:
        raise InputError(
            f"--name {name}: {table.location} still holds the results of an earlier run of that name, whose folder is gone; "
            "choose another name"
        )


def run_description(inputs: RunInputs) -> dict[str, Any]:
    """Return the content of a run's config.json: its config, and the data that it was started with."""
    config = inputs.config
    return {
        "config": without_secrets(config.to_dict()),
        "config_hash": config.config_hash,
        "data_fingerprint": inputs.splits.fingerprint,
    }


def _require_whole_checkpoint(run: Storage, config: TrainConfig) -> None:
    """Refuse a run none of whose checkpoints is whole: starting anew would delete what may be repaired."""
    if not run.list(CHECKPOINT_FOLDER):
        return
    from sst2_ray.training.checkpoint import files as ckpt

    reasons: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        try:
            whole = ckpt.newest_valid(run.with_retries(config.storage_timeout_s), Path(scratch), reasons.append)
        except OSError as error:
            raise RunFailedError(
                f"--name {config.run_name}: its checkpoints in {run.root} cannot be read "
                f"({' '.join(str(error).split())[:160]}); they stay: give the same command when they can be",
                FailureClass.STORAGE_ERROR,
            ) from None
    if whole is None and reasons:
        raise InputError(
            f"--name {config.run_name}: none of its {len(reasons)} checkpoints is whole "
            f"({reasons[0].split(';')[0]}); choose another name, or delete {run.path(CHECKPOINT_FOLDER)} to start anew"
        )


def _difference(there: dict[str, Any], config: TrainConfig) -> str:
    """Name the first few fields that differ, there -> here."""
    here = without_secrets(config.to_dict())
    changed = [f"{k} {there.get(k)} -> {here[k]}" for k in numeric_fields() if there.get(k) != here[k]]
    return ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
