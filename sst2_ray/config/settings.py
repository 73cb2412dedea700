"""Settings of one run, a frozen dataclass a group: the type, the rule, the default and the help of each field.

A new field is added here and nowhere else: TrainConfig, the flags, `--help`, config files and the hash follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sst2_ray.config.fields import (
    File,
    Folder,
    Fraction,
    Name,
    NotEmpty,
    NotNegative,
    Positive,
    Rule,
    UpTo,
    Value,
    group,
    matches,
)
from sst2_ray.config.metrics import Metric


@dataclass(frozen=True, kw_only=True)
@group("Model")
class ModelSettings:
    """Settings of the encoder and its classification head."""

    model: Name = "sbert-minilm"
    """A named model (modernbert-base, modernbert-large, modernbert-mini, sbert, sbert-mpnet, sbert-minilm), a hub id
    (owner/name) or a local folder."""
    model_revision: str | None = None
    """Commit, tag or branch on the hub; None: the pinned one of a named model, else the newest."""
    start_from: Folder | None = None
    """Exported model of a run of the same --model (STORAGE/NAME, or its folder model) to start from instead of the pretrained
    weights; its head is replaced by a fresh one."""
    random_weights: bool = False
    """Build the model's shape from random numbers instead of loading its weights (labeled so everywhere)."""
    tokenizer: Folder | None = None
    """Folder or hub id of the tokenizer; None: the model's own (modernbert-mini: a BPE trained on the training split)."""
    attention: Literal["auto", "eager", "sdpa", "varlen", "flash_attention_2"] = "auto"
    """Attention implementation; auto: varlen (no padding) or flash_attention_2 where the GPU allows it, else sdpa."""
    dropout: Fraction | None = None
    """Dropout probability before the classification head; None: 0.1 for SBERT, the checkpoint's own for ModernBERT."""
    encoder_dropout: Fraction | None = None
    """Dropout probability inside the encoder (hidden states and attention); None: the checkpoint's own."""


@dataclass(frozen=True, kw_only=True)
@group("Data")
class DataSettings:
    """Settings of the labeled sentences: where they are, how they are split and cut."""

    data: Annotated[str, Value("DATA")] = "rotten-tomatoes"
    """glue (SST-2 from the hub), glue/TASK, rotten-tomatoes (the demo extra), a folder with the splits train and dev, a file
    with a text and a label column (CSV, TSV, JSON, JSON Lines, Parquet, Arrow, Feather; text formats also .gz, .zst), or
    owner/name (with subsets owner/name/SUBSET) on the hub. In Python also a DataFrame or a Dataset, or several by split."""
    task: Literal["classification", "regression"] | None = None
    """regression: labels are numbers, and the model has one output for them. None: classification, but for glue/stsb."""
    data_revision: str | None = None
    """Commit, tag or branch of a data set on the hub; None: the newest. The commit is recorded either way."""
    split_train: Name | None = None
    """Training split of a data set on the hub; None: train."""
    split_dev: Name | None = None
    """Evaluation split of a data set on the hub; None: its dev, validation, valid, val, eval or test, else a hold-out."""
    dev_data: File | None = None
    """File to evaluate on if `data` is a single file; None: a stratified hold-out of `data`."""
    text_column: str | None = None
    """Column with the sentence; None: sentence or text."""
    text_columns: tuple[str, ...] = ()
    """Two columns with the texts of a pair, which the model reads as one sequence with its separator."""
    label_column: str | None = None
    """Column with the label; None: label."""
    labels: tuple[str, ...] = ()
    """Classes in their order, "ham spam", or with their numbers, "ham=0,spam=1"; none: those of the training split, numbers by
    value, names by Unicode."""
    drop_label: tuple[str, ...] = ()
    """Labels whose rows are left out of all splits."""
    drop_blank: bool = True
    """Leave out rows without a text or a label, and say how many; off: refuse data that have any."""
    split_column: str | None = None
    """Column that says which split a row belongs to (train, dev, ...); None: split, if its cells name train and dev."""
    group_column: str | None = None
    """Column whose equal cells keep rows together in hold-outs, e.g. the user or document that a text is from."""
    delimiter: str | None = None
    """Character between the cells of a text table ("tab" for a tab); None: found in the file."""
    encoding: str | None = None
    """Encoding of text files, e.g. cp1252; None: that of the byte order mark, else UTF-8."""
    quoting: Literal["auto", "standard", "none"] = "auto"
    """standard: cells may stand in quotation marks. none: a quotation mark is a character. auto: standard, but for TSV as
    the file shows."""
    header: Literal["auto", "yes", "no"] = "auto"
    """yes: the first row of a text table names its columns; auto: unless its cells recur below as data."""
    train_rows: Positive[int] | None = None
    """Train on a deterministic stratified subset of this many rows; None: all of them."""
    dev_rows: Positive[int] | None = None
    """Evaluate on a deterministic stratified subset of this many rows; None: all of them."""
    holdout_fraction: Fraction = 0.1
    """Share of the rows held out for evaluation if the data has no dev split of its own."""
    selection_fraction: Fraction = 0.0
    """Share of the training split held out for choosing the epoch (and, in a sweep, the configuration); dev is then
    scored once, at the end. 0: choose on dev."""
    calibrate_head: bool = False
    """When training ends, fit a temperature and, for two classes, a decision threshold on the held-out part of train
    (--selection-fraction), and put them into the exported head: every tool then gives calibrated probabilities."""
    max_length: Annotated[int, Rule[int](lambda v: v >= 4, "must be at least 4 tokens, two of them are special")] = 128
    """Tokens a sentence is truncated to, special tokens included."""
    pad_to_max_length: bool = False
    """Pad every sentence to --max-length, as the notebook study did; otherwise to the longest of its micro-batch."""
    drop_leaks: bool = False
    """Leave training rows out whose sentence also stands in the evaluation split."""
    allow_leak: bool = False
    """Run although evaluation sentences are in the training split."""


@dataclass(frozen=True, kw_only=True)
@group("Optimization")
class OptimizationSettings:
    """Settings of the optimizer, its schedule and the evaluations."""

    learning_rate: Positive[float] = 8e-5
    """Peak learning rate."""
    batch_size: Positive[int] = 64
    """Global batch size in examples: over all workers and micro-batches of one optimizer step."""
    epochs: Positive[int] = 2
    """Passes over the training split."""
    max_steps: Positive[int] | None = None
    """Stop after this many optimizer steps; the schedule ends there as well. None: epochs decides."""
    weight_decay: NotNegative[float] = 0.01
    """Weight decay, read as --weight-decay-form says; never on biases, norms and other vectors."""
    weight_decay_form: Literal["adamw", "fully_decoupled"] = "adamw"
    """adamw: p -= lr_t * wd * p (torch). fully_decoupled: p -= lr_t / lr_max * wd * p (the ModernBERT paper's)."""
    adam_beta1: Fraction = 0.9
    """AdamW beta 1."""
    adam_beta2: Fraction = 0.98
    """AdamW beta 2."""
    adam_eps: Positive[float] = 1e-6
    """AdamW epsilon."""
    warmup_fraction: Fraction = 0.06
    """Share of all steps over which the learning rate rises linearly from 0; it then falls linearly to 0."""
    max_grad_norm: NotNegative[float] = 1.0
    """Gradients are scaled down to this global L2 norm; 0: no clipping."""
    evaluations_per_epoch: Positive[int] = 1
    """Evaluations of the dev split an epoch, evenly spaced over its steps."""
    class_weights: Annotated[str, Value("balanced|FILE")] | None = None
    """Weights of the classes in the training loss. balanced: every class counts the same, however few its rows; a JSON or YAML
    file: a weight for each class name. None: every row counts the same."""
    label_smoothing: Fraction = 0.0
    """Share of each label that is spread evenly over all classes in the training loss."""
    choose_by: Metric | None = None
    """Metric that the best epoch, early stopping and the best configuration of a sweep go by; None: the task's own, which is
    accuracy but for some of GLUE. auroc: two classes only; pearson, spearman: regression only."""
    patience: Positive[int] | None = None
    """Stop after this many evaluations that were no better (see --choose-by); None: never."""
    seed: NotNegative[int] = 0
    """Seed of the head's initial weights, the order of the data and dropout."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16: autocast of matrix products, parameters and gradients stay fp32. auto: bf16 if the chip computes in it."""


@dataclass(frozen=True, kw_only=True)
@group("Placement", affects_numbers=False)
class PlacementSettings:
    """Settings of the workers and the hardware; they do not change the numbers."""

    engine: Literal["zero2", "torch"] = "zero2"
    """zero2: DeepSpeed ZeRO-2. torch: plain torch (one worker), for parity checks and benchmarks."""
    num_workers: Annotated[Positive[int] | None, UpTo("max_workers")] = None
    """Data-parallel workers; None: one a GPU of a cluster of fixed size, one where machines are started on demand, or one with
    all cores if there is no GPU."""
    max_workers: Positive[int] | None = None
    """Workers beyond --num-workers that the run may grow to while the cluster has room, at a checkpoint; it goes on with
    fewer if a node is lost. `--num-workers 2:8` gives both. None: exactly num_workers."""
    cpus_per_worker: Positive[int] | None = None
    """CPU cores a worker; None: an equal share of the largest node's."""
    use_gpu: bool | None = None
    """One GPU a worker; None: if the cluster has any."""
    micro_batch_tokens: Positive[int] | None = None
    """Most padded tokens a worker computes at once; None: chosen for the device. Only memory and speed depend on it."""
    compile: bool | None = None
    """GPUs: torch.compile the encoder's layers: fewer kernels a step, half a minute more at the start. None: on GPUs whose
    node has a C compiler, for runs that are long enough to earn it back."""
    cuda_graphs: bool | None = None
    """GPUs: capture a micro-batch's kernels once and replay them, which spares the host nearly all of its work in a step.
    None: where the GPU's share of a batch is small and sentences are laid end to end."""
    overlap_comm: bool = True
    """GPUs: send gradients during the backward pass; off: after it, in one reduce-scatter."""


@dataclass(frozen=True, kw_only=True)
@group("Storage", affects_numbers=False)
class StorageSettings:
    """Settings of the folder that a run is written to."""

    storage_path: NotEmpty = "runs"
    """Folder or URI (s3://, gs://) for runs and the results table; every node must reach it."""
    name: Annotated[
        Name,
        matches(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
            "letters, digits, '.', '_' and '-' only, at most 128, so that it cannot leave the storage folder",
        ),
        Rule[str](
            lambda name: name != "results",
            "that folder below the storage path holds the results table; choose another name",
        ),
    ] | None = None  # fmt: skip
    """Name of the run, below the storage path; the same name resumes it. None: model, data and config hash."""


@dataclass(frozen=True, kw_only=True)
@group("Tracking", affects_numbers=False)
class TrackingSettings:
    """Settings of the trackers that are told of a run."""

    trackers: tuple[Literal["tensorboard", "mlflow", "wandb", "jsonl"], ...] = ()
    """Also send metrics to these trackers; one that does not answer neither ends a run nor keeps it waiting."""


@dataclass(frozen=True, kw_only=True)
@group("Checkpoints", affects_numbers=False)
class CheckpointSettings:
    """Settings of the checkpoints inside an epoch."""

    checkpoint_every_steps: Positive[int] | None = None
    """Optimizer steps between checkpoints besides those by time; None: no more than those."""
    checkpoint_every_s: Positive[float] | None = 300.0
    """Most seconds between checkpoints, besides the one after each evaluation; None: none by time. After a failure it is
    as often as loses the least time, from what a checkpoint costs and how often the run has failed, unless
    --checkpoint-every-steps is given."""
    keep_checkpoints: Positive[int] = 2
    """Newest valid checkpoints that are kept besides the best one while the run goes on."""


@dataclass(frozen=True, kw_only=True)
@group("Failures, time limits and cost", affects_numbers=False)
class LimitSettings:
    """Settings of what a run survives, how long it waits and what it costs."""

    max_retries: NotNegative[int] = 3
    """Restarts from the newest valid checkpoint after a lost worker or node or an out-of-memory."""
    placement_timeout_s: Positive[float] | None = None
    """Seconds to wait for the workers to be placed before giving up (exit code 3), and on while a machine for them is being set
    up; None: 600, 1800 where machines are started on demand."""
    step_timeout_s: Positive[float] = 600.0
    """Seconds without progress after which a worker counts as hung."""
    storage_timeout_s: Positive[float] = 120.0
    """Seconds for which unreachable storage is retried before the run fails, at most --step-timeout-s; a full disk fails at once."""
    price_per_hour: NotNegative[float] | None = None
    """US dollars an hour of one node of workers, for the cost column; None: no cost is stated."""
