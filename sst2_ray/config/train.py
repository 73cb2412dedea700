"""The configuration of one run: a frozen dataclass, checked before torch or ray is imported.

Every field is a flag of `jobs/train.py`, a key of a `--config` file and a column of the results table's `config_json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from sst2_ray.config.fields import coerce, kinds_of
from sst2_ray.config.registry import MODELS
from sst2_ray.errors import InputError, did_you_mean

_RUN_ONLY: dict[str, Any] = {"affects_numbers": False}
"""Metadata of fields that say where and how a run runs, not what it computes: left out of the config's hash."""


def _where(default: Any) -> Any:
    return field(default=default, metadata=_RUN_ONLY)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One fine-tuning run."""

    # ---- what
    model: str = "sbert-minilm"
    """A named model (modernbert-base, modernbert-large, modernbert-mini, sbert, sbert-mpnet, sbert-minilm), a hub id
    (owner/name) or a local folder."""
    model_revision: str | None = None
    """Commit, tag or branch on the hub; None: the pinned one of a named model, else the newest."""
    random_weights: bool = False
    """Build the model's shape from random numbers instead of loading its weights (labelled so everywhere)."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer; None: the model's own (modernbert-mini: a BPE trained on the training split)."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation; auto: flash_attention_2 where the GPU and the package allow it, else sdpa."""
    dropout: float | None = None
    """Probability of dropout before the classification head; None: 0.1 for SBERT, the checkpoint's own for ModernBERT."""
    encoder_dropout: float | None = None
    """Probability of dropout inside the encoder (hidden states and attention); None: the checkpoint's own."""

    data: str = "rotten-tomatoes"
    """glue (SST-2 from the hub), rotten-tomatoes (the demo extra), a folder in GLUE's layout (train.tsv, dev.tsv), or a
    Parquet, CSV, TSV or JSONL file with a text and a label column."""
    dev_data: str | None = None
    """File to evaluate on, where `data` is a single file; None: a stratified hold-out of `data`."""
    text_column: str | None = None
    """Column with the sentence; None: sentence or text."""
    label_column: str | None = None
    """Column with the label (0/1, negative/positive); None: label."""
    train_rows: int | None = None
    """Train on a deterministic stratified subset of this many rows; None: all of them."""
    dev_rows: int | None = None
    """Evaluate on a deterministic stratified subset of this many rows; None: all of them."""
    holdout_fraction: float = 0.1
    """Share of the rows that is held out for evaluation where the data has no dev split of its own."""
    selection_fraction: float = 0.0
    """Share of the training split that is held out for choosing the epoch (and, in a sweep, the configuration); dev is
    then scored once, at the end. 0: choose on dev."""
    max_length: int = 128
    """Tokens a sentence is truncated to, special tokens included."""
    pad_to_max_length: bool = False
    """Pad every sentence to max_length (the notebook study's way); False: only to the longest of its micro-batch."""
    allow_leak: bool = False
    """Go on although evaluation sentences stand in the training split."""

    # ---- optimization
    learning_rate: float = 8e-5
    """Peak learning rate."""
    batch_size: int = 64
    """Global batch size in examples: over all workers and micro-batches of one optimizer step."""
    epochs: int = 2
    """Passes over the training split."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; the schedule ends there as well. None: epochs decides."""
    weight_decay: float = 0.01
    """Weight decay, read as `weight_decay_form` says; never on biases, norms and other vectors."""
    weight_decay_form: Literal["adamw", "fully_decoupled"] = "adamw"
    """adamw: p -= lr_t * wd * p (torch). fully_decoupled: p -= lr_t / lr_max * wd * p (the ModernBERT paper's)."""
    adam_beta1: float = 0.9
    """AdamW beta 1."""
    adam_beta2: float = 0.98
    """AdamW beta 2."""
    adam_eps: float = 1e-6
    """AdamW epsilon."""
    warmup_fraction: float = 0.06
    """Share of all steps over which the learning rate rises linearly from 0; it then falls linearly to 0."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global L2 norm; 0: no clipping."""
    evaluations_per_epoch: int = 1
    """Evaluations of the dev split an epoch, evenly spaced over its steps."""
    patience: int | None = None
    """Stop after this many evaluations without a better dev accuracy; None: never."""
    seed: int = 0
    """Seed of the head's initial weights, the order of the data and dropout."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16: autocast of matrix products, parameters and gradients stay fp32. auto: bf16 where the chip computes in it."""

    # ---- where and how: changes neither the numbers nor the config's hash
    engine: Literal["zero2", "torch"] = _where("zero2")
    """zero2: DeepSpeed ZeRO-2. torch: plain torch (one worker), for parity checks and benchmarks."""
    num_workers: int | None = _where(None)
    """Data-parallel workers; None: one a GPU of the cluster, or one with all its cores where it has no GPU."""
    max_workers: int | None = _where(None)
    """More workers than num_workers that the run may grow to while the cluster has room, at a checkpoint; it goes on with
    fewer where a node is lost. `--num-workers 2:8` says both. None: exactly num_workers."""
    cpus_per_worker: int | None = _where(None)
    """CPU cores a worker; None: an equal share of the largest node's."""
    use_gpu: bool | None = _where(None)
    """One GPU a worker; None: if the cluster has any."""
    micro_batch_tokens: int | None = _where(None)
    """Most padded tokens a worker computes at once; None: chosen for the device. Only memory and speed depend on it."""
    compile: bool = _where(False)
    """GPUs: torch.compile the encoder's layers; a minute more at the start, fewer kernels a step."""
    overlap_comm: bool = _where(True)
    """GPUs: gradients travel while the backward pass goes on; False: after it, in one reduce-scatter."""
    storage_path: str = _where("runs")
    """Folder or URI (s3://, gs://) for runs and the results table; every node must reach it."""
    name: str | None = _where(None)
    """Name of the run below storage_path; the same name goes on where it stopped. None: model, data and config hash."""
    checkpoint_every_steps: int | None = _where(None)
    """Optimizer steps between checkpoints inside an epoch; None: one an evaluation."""
    checkpoint_every_s: float | None = _where(None)
    """Seconds between checkpoints inside an epoch; None: one an evaluation."""
    keep_checkpoints: int = _where(2)
    """Newest valid checkpoints that are kept besides the best one while the run goes on."""
    max_retries: int = _where(3)
    """Restarts from the newest valid checkpoint after a lost worker or node or an out-of-memory."""
    placement_timeout_s: float = _where(600.0)
    """Seconds to wait for the workers to be placed before giving up (exit code 3)."""
    step_timeout_s: float = _where(600.0)
    """Seconds without progress after which a worker counts as hung."""
    storage_timeout_s: float = _where(120.0)
    """Seconds for which storage that cannot be reached is tried again before the run fails; a full disk fails at once."""
    price_per_hour: float | None = _where(None)
    """US dollars an hour of one node of workers, for the cost column; None: no cost is stated."""

    def __post_init__(self) -> None:
        check_train_config(self)
        for name, kind in kinds_of(TrainConfig).items():  # 1 and 1.0 are the same rate: they must have the same hash
            if kind.type is float and isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return dataclasses.asdict(self)

    @property
    def config_hash(self) -> str:
        """12 hex digits over every field that affects the numbers: equal hashes, equal results."""
        return hash_of(
            {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata.get("affects_numbers", True)}
        )

    @property
    def run_name(self) -> str:
        """`name`, or one made of the model, the data and the config's hash."""
        if self.name:
            return self.name
        stem = "-".join(
            re.sub(r"[^A-Za-z0-9]+", "-", part.rstrip("/").split("/")[-1]).strip("-")
            for part in (self.model, self.data)
        )
        return f"{stem}-{self.config_hash}"


def hash_of(values: dict[str, Any]) -> str:
    """12 hex digits of SHA-256 over the canonical JSON of `values`."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _positive(config: TrainConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name.replace('_', '-')} {value}: must be a finite number above 0")


def _fraction(config: TrainConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 0 and below 1")


def _not_negative(config: TrainConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"--{name.replace('_', '-')} {value}: must be a finite number, 0 or above")


def check_train_config(config: TrainConfig) -> None:
    """Everything that can be told from the values alone. Raises InputError with one line."""
    for name, kind in kinds_of(TrainConfig).items():
        value = getattr(config, name)
        if not kind.holds(value):
            raise InputError(f"--{name.replace('_', '-')} {value!r}: must be {kind}")
    _positive(
        config, "learning_rate", "batch_size", "epochs", "max_steps", "adam_eps", "evaluations_per_epoch", "patience", "train_rows",
        "dev_rows", "num_workers", "max_workers", "cpus_per_worker", "micro_batch_tokens", "checkpoint_every_steps", "checkpoint_every_s",
        "placement_timeout_s", "step_timeout_s", "storage_timeout_s", "keep_checkpoints",
    )  # fmt: skip
    _not_negative(config, "weight_decay", "max_grad_norm", "seed", "max_retries", "price_per_hour")
    _fraction(
        config,
        "dropout",
        "encoder_dropout",
        "warmup_fraction",
        "holdout_fraction",
        "selection_fraction",
        "adam_beta1",
        "adam_beta2",
    )
    if config.max_length < 4:
        raise InputError(f"--max-length {config.max_length}: must be at least 4 tokens, two of them are special")
    if config.max_workers is not None and config.max_workers < (config.num_workers or 1):
        raise InputError(
            f"--num-workers {config.num_workers or 1}:{config.max_workers}: the second number must be at least the first"
        )
    if config.engine == "torch" and max(config.num_workers or 1, config.max_workers or 1) > 1:
        raise InputError(
            f"--engine torch --num-workers {config.num_workers}: plain torch runs on one worker; use --engine zero2"
        )
    if config.attention == "flash_attention_2" and config.precision == "fp32":
        raise InputError(
            "--attention flash_attention_2 --precision fp32: flash attention computes in 16 bits only; use --precision bf16"
        )
    if config.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", config.name):
        raise InputError(
            f"--name {config.name!r}: letters, digits, '.', '_' and '-' only, at most 128, so that it cannot leave the storage folder"
        )
    if not config.storage_path:
        raise InputError("--storage-path '': is empty; is a variable of the shell not set?")
    if config.name == "results":
        raise InputError(
            "--name results: that folder below the storage path holds the results table; choose another name"
        )
    # A bare word that is neither a named model nor an existing folder is most likely a typo.
    if config.model not in MODELS and "/" not in config.model and not config.model.startswith("."):
        raise InputError(
            f"--model {config.model}: no such model; {did_you_mean(config.model, MODELS)} (or owner/name on the hub, or ./folder)"
        )


def config_from_dict(values: dict[str, Any], *, source: str = "config") -> TrainConfig:
    """A TrainConfig from plain values, e.g. of a YAML file. Unknown keys are refused with the nearest valid ones."""
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    for key in values:
        if key not in known:
            raise InputError(f"{source}: unknown key {key!r}; {did_you_mean(str(key), known)}")
    try:
        return TrainConfig(
            **{key: coerce(kinds_of(TrainConfig)[key], key, value, source) for key, value in values.items()}
        )
    except TypeError as error:
        raise InputError(f"{source}: {error}") from None
