"""Records of the results table: a frozen dataclass for each of its data sets.

results/store/schema.py derives the Arrow schemas from them, and docs/results.md its tables of columns.
"""

# ruff: noqa: RUF009 - _key and _col return a new dataclass field each time
from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from sst2_ray.errors import FailureClass

SCHEMA_VERSION = 3
"""3: metrics that runs are chosen by. 2: classes other than negative and positive. Columns that an older table lacks read as
null."""


class Status(StrEnum):
    """State of an attempt."""

    RUNNING = "running"
    """A start row without an end row."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Ended on request; it can be resumed."""
    EARLY_STOPPED = "early_stopped"
    """Ended by a scheduler."""
    LOST = "lost"
    """An attempt without an end row that a resume closed."""


StopRequest = Literal[Status.EARLY_STOPPED, Status.STOPPED]
"""Status that a request to end leaves: a scheduler's ends the run for good, a user's run can be resumed."""


def _key(doc: str, *, unit: str = "") -> Any:
    """Declare a column that every row has."""
    return field(metadata={"doc": doc, "unit": unit})


def _col(doc: str, *, unit: str = "") -> Any:
    """Declare a column that may be null: not known, or not applicable."""
    return field(default=None, metadata={"doc": doc, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """An attempt of a run or trial: a row at its start, a row at its end; the later (by `written_at`) counts."""

    experiment: str = _key("Name of the run or sweep.")
    trial_id: str = _key("Name of the trial inside the experiment; a single run is its own trial.")
    attempt: int = _key("0 for the first start, one more for each restart.")
    status: Status = _key(f"One of {', '.join(Status)}.")
    written_at: dt.datetime = _key("When this row was written.", unit="UTC")
    failure_class: FailureClass | None = _col(f"One of {', '.join(FailureClass)}; null where nothing failed.")
    failure_message: str | None = _col("One line.")
    started_at: dt.datetime | None = _col("Start of the attempt.", unit="UTC")
    ended_at: dt.datetime | None = _col("End of the attempt.", unit="UTC")
    # what
    config_hash: str | None = _col("Hash over the fields of the config that affect the numbers.")
    config_json: str | None = _col("The whole resolved config.")
    configuration_id: str | None = _col(
        "Hash of the config without its seed: equal for the seeds of one configuration."
    )
    model: str | None = _col("As given: a name, a hub id or a folder.")
    model_kind: str | None = _col("modernbert, encoder or sbert.")
    model_source: str | None = _col("Where the weights came from: hub, folder, packaged, random.")
    model_revision: str | None = _col("Resolved commit on the hub.")
    random_weights: bool | None = _col("True: not pretrained.")
    num_parameters: int | None = _col("Parameters of the model with its head.")
    attention: str | None = _col("Attention implementation that ran.")
    data: str | None = _col("As given: a name or a path.")
    data_source: str | None = _col("Where the rows came from; of data on the hub with the commit.")
    data_fingerprint: str | None = _col("Hash of the training and evaluation rows.")
    eval_split: str | None = _col("What was evaluated on: 'SST-2 dev', or 'hold-out of ...'.")
    num_classes: int | None = _col("Classes; null: two, in tables of version 1.")
    class_names_json: str | None = _col("Names of the classes, in the order of their numbers.")
    majority_share: float | None = _col("Accuracy on dev of always answering its most frequent class.", unit="0-1")
    num_train_rows: int | None = _col("Rows trained on, an epoch.", unit="rows")
    num_dev_rows: int | None = _col("Rows evaluated on.", unit="rows")
    learning_rate: float | None = _col("Peak learning rate.")
    batch_size: int | None = _col("Global batch.", unit="examples")
    weight_decay: float | None = _col("As given; read as weight_decay_form says.")
    weight_decay_form: str | None = _col("adamw or fully_decoupled.")
    warmup_fraction: float | None = _col("Share of the steps.")
    epochs: int | None = _col("Epochs asked for.")
    seed: int | None = _col("Seed.")
    # how good
    chosen_by: str | None = _col("Metric that evaluations and configurations are compared by; null: accuracy.")
    best_epoch: float | None = _col("Epoch of the best evaluation (by chosen_by, then the earlier).")
    best_global_step: int | None = _col("Optimizer steps done at the best evaluation.")
    best_dev_accuracy: float | None = _col("At the best evaluation.", unit="0-1")
    best_dev_f1: float | None = _col(
        "At the best evaluation: of class 1 of two, else the mean over the classes.", unit="0-1"
    )
    best_dev_loss: float | None = _col("At the best evaluation, mean cross entropy.", unit="nats")
    best_dev_macro_f1: float | None = _col("At the best evaluation, mean over the classes.", unit="0-1")
    best_dev_mcc: float | None = _col("At the best evaluation, Matthews' correlation coefficient.", unit="-1 to 1")
    best_dev_auroc: float | None = _col(
        "At the best evaluation, area under the ROC curve; null: not two classes.", unit="0-1"
    )
    best_dev_pearson: float | None = _col(
        "At the best evaluation, Pearson's correlation; null: classes.", unit="-1 to 1"
    )
    best_dev_spearman: float | None = _col(
        "At the best evaluation, Spearman's correlation; null: classes.", unit="-1 to 1"
    )
    best_score: float | None = _col("The metric chosen_by at the best evaluation, on dev.")
    other_scores_json: str | None = _col(
        "Scores of the best model on further evaluation splits of the data (MNLI's second one), by split."
    )
    best_num_answered: int | None = _col("Classes that the best model answers at least once on dev.")
    last_epoch: float | None = _col("Epoch of the last evaluation.")
    first_global_step: int | None = _col(
        "Optimizer steps done when the attempt began: those of the checkpoint that it went on from."
    )
    last_global_step: int | None = _col(
        "Optimizer steps done; of an attempt that was stopped, those of the checkpoint that it left; of one that failed, "
        "as last heard."
    )
    last_dev_accuracy: float | None = _col("At the last evaluation.", unit="0-1")
    last_dev_f1: float | None = _col("At the last evaluation.", unit="0-1")
    last_dev_loss: float | None = _col("At the last evaluation.", unit="nats")
    last_train_loss: float | None = _col("Mean over the last stretch between two evaluations.", unit="nats")
    selection_accuracy: float | None = _col(
        "Accuracy on the held-out part of train that the best epoch was chosen on; null: chosen on dev.", unit="0-1"
    )
    selection_score: float | None = _col(
        "The metric chosen_by on the held-out part of train that the best epoch was chosen on; null: chosen on dev."
    )
    temperature: float | None = _col("Logits are divided by it in the exported head; null: not calibrated.")
    decision_threshold: float | None = _col(
        "Uncalibrated probability of class 1 of two from which on the exported head answers class 1.", unit="0-1"
    )
    # how fast, how much
    seconds: float | None = _col("Wall-clock of the attempt.", unit="s")
    goodput: float | None = _col(
        "Share of the time of all attempts of the trial so far in optimizer steps that counted; the rest went into start-up, "
        "evaluation, checkpoints, restarts and steps done again.",
        unit="0-1",
    )
    num_lost_steps: int | None = _col("Optimizer steps that attempts of the trial so far did again.", unit="steps")
    startup_seconds: float | None = _col("From the start of the attempt to the first optimizer step.", unit="s")
    data_seconds: float | None = _col("Rank 0: waiting for batches.", unit="s")
    forward_seconds: float | None = _col("Rank 0: forward passes of training.", unit="s")
    backward_seconds: float | None = _col("Rank 0: backward passes.", unit="s")
    communication_seconds: float | None = _col("Rank 0: collectives outside backward.", unit="s")
    optimizer_seconds: float | None = _col("Rank 0: optimizer steps, clipping included.", unit="s")
    evaluation_seconds: float | None = _col("Rank 0: evaluation.", unit="s")
    checkpoint_seconds: float | None = _col("Rank 0: training stood still for checkpoints and exports.", unit="s")
    examples_per_sec: float | None = _col(
        "Training examples over training time, all workers, evaluation and checkpoints left out.", unit="1/s"
    )
    tokens_per_sec: float | None = _col("Training tokens (no padding) over training time, all workers.", unit="1/s")
    padding_fraction: float | None = _col("Share of the computed tokens that were padding.", unit="0-1")
    model_flop_utilization: float | None = _col(
        "Model FLOP/s over the peak in this precision: a GPU's from its data sheet, null where not known; a CPU's measured.",
        unit="0-1",
    )
    peak_memory_gib: float | None = _col(
        "Largest peak over the workers: GPU memory that torch reserved, or resident memory on CPU.", unit="GiB"
    )
    world_size: int | None = _col("Workers at the end of the attempt.")
    micro_batch_tokens: int | None = _col("Most tokens a worker computed at once (after any halving).", unit="tokens")
    precision: str | None = _col("bf16 or fp32.")
    engine: str | None = _col("zero2 or torch.")
    cost_usd: float | None = _col("seconds x price x nodes; null: no price was given.", unit="US$")
    price_per_hour: float | None = _col("Price of a node that was given.", unit="US$/h")
    export_path: str | None = _col("Folder of the exported best model.")
    # provenance
    git_commit: str | None = _col("Commit of the code, where it is a checkout.")
    git_dirty: bool | None = _col("True: the checkout had uncommitted changes.")
    versions_json: str | None = _col("Versions of this package, Python, ray, torch, transformers, deepspeed, CUDA.")
    device: str | None = _col("cpu or cuda.")
    chip: str | None = _col("Model name of the GPU, or of the CPU.")
    node_types_json: str | None = _col("Nodes of the workers: address and resources.")
    imported_from: str | None = _col("Folder of another tool that the row was read from; null: this package ran it.")

    @property
    def accuracy(self) -> float | None:
        """Return the accuracy on the held-out part of train if the epoch was chosen on it, else on dev."""
        return self.selection_accuracy if self.selection_accuracy is not None else self.best_dev_accuracy

    @property
    def score(self) -> float | None:
        """Return the value to rank by, of the metric `chosen_by`: on the held-out part of train if the epoch was chosen on it,
        else on dev."""
        if self.chosen_by in (None, "accuracy"):
            return self.accuracy
        return self.selection_score if self.selection_score is not None else self.best_score


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """An evaluation: a point of the curves."""

    experiment: str = _key("Name of the run or sweep.")
    trial_id: str = _key("Name of the trial.")
    attempt: int = _key("Attempt that computed it.")
    split: str = _key("dev, or selection for a held-out part of train.")
    global_step: int = _key("Optimizer steps done.", unit="steps")
    epoch: float = _key("Passes over the training split; fractional inside one.")
    learning_rate: float | None = _col("Of the last step.")
    train_loss: float | None = _col("Mean over the examples since the evaluation before.", unit="nats")
    train_accuracy: float | None = _col("Running, over the same examples, dropout on.", unit="0-1")
    dev_loss: float | None = _col("Mean cross entropy of the split, fp32.", unit="nats")
    dev_accuracy: float | None = _col("Share of the split's rows that are right.", unit="0-1")
    dev_f1: float | None = _col("F1 of class 1 of two, else the mean over the classes.", unit="0-1")
    dev_precision: float | None = _col("Precision, likewise.", unit="0-1")
    dev_recall: float | None = _col("Recall, likewise.", unit="0-1")
    dev_macro_f1: float | None = _col("Mean of the classes' F1.", unit="0-1")
    dev_weighted_f1: float | None = _col("Mean of the classes' F1, weighted by their rows.", unit="0-1")
    dev_mcc: float | None = _col("Matthews' correlation coefficient.", unit="-1 to 1")
    dev_auroc: float | None = _col("Area under the ROC curve; null: not two classes.", unit="0-1")
    dev_pearson: float | None = _col("Pearson's correlation of answers and labels; null: classes.", unit="-1 to 1")
    dev_spearman: float | None = _col("Spearman's correlation of answers and labels; null: classes.", unit="-1 to 1")
    score_error: float | None = _col(
        "Standard error over the split's rows of the metric that the run is chosen by; null for accuracy."
    )
    num_answered: int | None = _col("Classes that are the answer for at least one row.")
    num_dev_rows: int | None = _col("Rows of the split, each counted once.", unit="rows")
    grad_norm: float | None = _col("Global L2 norm of the last step, before clipping.")
    seconds: float | None = _col("Training and evaluation time since the attempt's first step.", unit="s")
    examples_per_sec: float | None = _col("Training speed since the evaluation before.", unit="1/s")
    tokens_per_sec: float | None = _col("Training tokens (no padding), likewise.", unit="1/s")
    written_at: dt.datetime | None = _col("When it was computed.", unit="UTC")


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """A row of the evaluation split and the prediction of a finished trial's best model."""

    experiment: str = _key("Name of the run or sweep.")
    trial_id: str = _key("Name of the trial.")
    attempt: int = _key("Attempt that computed it.")
    split: str = _key("dev, or selection for a held-out part of train.")
    global_step: int = _key("Optimizer steps of the model that predicted.", unit="steps")
    row_id: int = _key("Position in the split.")
    text: str | None = _col("The sentence; of a pair both texts, divided by a bar.")
    label: int | None = _col("Number of the class.")
    predicted: int | None = _col("Number of the class.")
    label_value: float | None = _col("Label of a regression; null: classes.")
    predicted_value: float | None = _col("Answer of a regression; null: classes.")
    probability: float | None = _col("Probability, fp32 softmax: of class 1 of two, else of the answer.", unit="0-1")
