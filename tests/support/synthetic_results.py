"""Made-up results tables for tests and benchmarks: plausible in shape, and nothing in them was ever trained."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass

import numpy as np

from sst2_ray.config.train import hash_of
from sst2_ray.records import EpochRecord, PredictionRecord, TrialRecord
from sst2_ray.results.store.import_tune import best_and_last
from sst2_ray.results.store.table import ResultsTable

START = dt.datetime(2026, 1, 5, 9, 0, tzinfo=dt.UTC)
NUM_DEV_ROWS = 872
NUM_TRAIN_ROWS = 67_349

_POSITIVE = ("warm", "clever", "moving", "sharp", "funny", "generous", "inventive", "graceful")
_NEGATIVE = ("flat", "tedious", "clumsy", "hollow", "dull", "forced", "shapeless", "stale")
_NOUNS = ("plot", "cast", "score", "ending", "dialogue", "pacing", "camera", "romance", "satire", "premise")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Behavior of a made-up model."""

    name: str
    kind: str
    peak: float
    """Accuracy at its best learning rate."""
    best_learning_rate: float
    examples_per_sec: float
    random_weights: bool = False


MODERNBERT = Model(name="modernbert-base", kind="modernbert", peak=0.949, best_learning_rate=8e-5, examples_per_sec=410)
SBERT = Model(name="sbert", kind="sbert", peak=0.923, best_learning_rate=4e-5, examples_per_sec=560)
MINI = Model(
    name="modernbert-mini", kind="modernbert", peak=0.79, best_learning_rate=3e-4, examples_per_sec=2400, random_weights=True
)  # fmt: skip


def sentences(num_rows: int = NUM_DEV_ROWS, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Make up sentences and their labels, [num_rows]."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 444 / 872).astype(int)
    texts = []
    for row, label in enumerate(labels):
        words = _POSITIVE if label else _NEGATIVE
        clauses = [f"the {rng.choice(_NOUNS)} is {rng.choice(words)}" for _ in range(rng.integers(1, 5))]
        texts.append(f"made-up sentence {row}: {' and '.join(clauses)} .")
    return texts, labels


def write_study(
    storage_path: str,
    *,
    experiment: str = "synthetic-sweep",
    models: tuple[Model, ...] = (MODERNBERT, SBERT),
    learning_rates: tuple[float, ...] = (2e-5, 4e-5, 8e-5, 1.2e-4),
    batch_sizes: tuple[int, ...] = (16, 32, 64),
    weight_decays: tuple[float, ...] = (0.01,),
    num_seeds: int = 3,
    epochs: int = 4,
    eval_split: str = "SST-2 dev",
    status: str = "succeeded",
    price_per_hour: float | None = 3.06,
    with_failures: bool = True,
    with_predictions: bool = True,
) -> ResultsTable:
    """Write a sweep's trials, epochs and predictions; a few of the trials fail or are stopped early."""
    table = ResultsTable(storage_path)
    texts, labels = sentences()
    grid = [
        (model, lr, batch, decay, seed)
        for model in models
        for lr in learning_rates
        for batch in batch_sizes
        for decay in weight_decays
        for seed in range(num_seeds)
    ]
    difficulty = np.random.default_rng(7).beta(1.2, 1.2, NUM_DEV_ROWS)
    for number, (model, lr, batch, decay, seed) in enumerate(grid):
        trial = _Trial(
            number=number, experiment=experiment, model=model, learning_rate=lr, batch_size=batch, weight_decay=decay,
            seed=seed, epochs=epochs, eval_split=eval_split, price_per_hour=price_per_hour,
        )  # fmt: skip
        table.write("trials", [trial.record("running")])
        failed = with_failures and lr == max(learning_rates) and batch == min(batch_sizes) and seed == 1
        early = with_failures and lr == min(learning_rates) and batch == max(batch_sizes)
        outcome = "failed" if failed else "early_stopped" if early and status == "succeeded" else status
        points, predictions = trial.run(texts, labels, difficulty, num_epochs=1 if early or failed else epochs)
        if outcome != "failed":
            table.write("epochs", points)
        if outcome == "succeeded" and with_predictions:
            table.write("predictions", predictions)
        if outcome != "running":
            table.write("trials", [trial.record(outcome, points)])
    return table


@dataclass(frozen=True, kw_only=True)
class _Trial:
    number: int
    experiment: str
    model: Model
    learning_rate: float
    batch_size: int
    weight_decay: float
    seed: int
    epochs: int
    eval_split: str
    price_per_hour: float | None

    @property
    def trial_id(self) -> str:
        return f"{self.number:04d}-{self.model.name}-s{self.seed}"

    @property
    def examples_per_sec(self) -> float:
        """Return the speed: larger batches are faster, and no two runs take equally long."""
        noise = np.random.default_rng([self.number, 5]).normal(1, 0.015)
        return float(self.model.examples_per_sec * (self.batch_size / 32) ** 0.25 * noise)

    def run(
        self, texts: list[str], labels: np.ndarray, difficulty: np.ndarray, *, num_epochs: int
    ) -> tuple[list[EpochRecord], list[PredictionRecord]]:
        """Make up the curve, and the answers at its best point."""
        rng = np.random.default_rng([self.seed, self.number])
        skill = self.model.peak - 0.012 * abs(np.log2(self.learning_rate / self.model.best_learning_rate)) ** 1.5
        skill -= 0.002 * abs(np.log2(self.batch_size / 32)) + rng.normal(0, 0.003)
        common = np.random.default_rng([self.seed, 99]).normal(0, 0.05, len(labels))
        points: list[EpochRecord] = []
        answers: list[np.ndarray] = []
        for epoch in range(1, num_epochs + 1):
            accuracy = skill - 0.03 * np.exp(-1.6 * (epoch - 0.4)) - 0.0035 * max(0, epoch - 2)
            # The hardest (1 - accuracy) of the sentences are wrong, as this model and seed see them.
            seen = difficulty + common + np.random.default_rng([self.number, epoch]).normal(0, 0.09, len(labels))
            margin = np.quantile(seen, accuracy) - seen
            probability = 1 / (1 + np.exp(-(9 + 3 * epoch) * margin))
            probability = np.where(labels == 1, probability, 1 - probability)
            answers.append(probability)
            points.append(self._point(epoch, probability, labels, rng))
        best = int(np.argmax([point.dev_accuracy for point in points]))
        predictions = [
            PredictionRecord(
                experiment=self.experiment,
                trial_id=self.trial_id,
                attempt=0,
                split="dev",
                row_id=row,
                text=texts[row],
                global_step=points[best].global_step,
                label=int(labels[row]),
                predicted=int(p >= 0.5),
                probability=float(p),
            )
            for row, p in enumerate(answers[best])
        ]
        return points, predictions

    def _point(self, epoch: int, probability: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> EpochRecord:
        predicted = probability >= 0.5
        hits = int((predicted & (labels == 1)).sum())
        precision, recall = hits / max(1, predicted.sum()), hits / (labels == 1).sum()
        chosen = np.where(labels == 1, probability, 1 - probability)
        return EpochRecord(
            experiment=self.experiment,
            trial_id=self.trial_id,
            attempt=0,
            split="dev",
            global_step=epoch * (NUM_TRAIN_ROWS // self.batch_size),
            epoch=float(epoch),
            learning_rate=self.learning_rate * (1 - epoch / (self.epochs + 0.01)),
            train_loss=float(0.42 * np.exp(-0.75 * epoch) + 0.02 + abs(rng.normal(0, 0.004))),
            train_accuracy=float(min(0.999, 0.9 + 0.028 * epoch)),
            dev_loss=float(-np.log(np.clip(chosen, 1e-7, 1)).mean()),
            dev_accuracy=float((predicted == (labels == 1)).mean()),
            dev_f1=float(2 * precision * recall / (precision + recall)),
            dev_precision=float(precision),
            dev_recall=float(recall),
            num_dev_rows=len(labels),
            seconds=epoch * (NUM_TRAIN_ROWS / self.examples_per_sec + 4),
            examples_per_sec=self.examples_per_sec,
            tokens_per_sec=self.examples_per_sec * 13.3,
            written_at=START + dt.timedelta(minutes=self.number + epoch),
        )

    def record(self, status: str, points: list[EpochRecord] | None = None) -> TrialRecord:
        """Return the row at the start, or at the end."""
        config = {
            "model": self.model.name,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "epochs": self.epochs,
        }
        seconds = points[-1].seconds + 12 if points and points[-1].seconds else 12.0
        ended = {"seconds": seconds, **self._spent(seconds), **best_and_last(points)} if points else {}
        if status == "failed":
            ended = {
                "failure_class": "non_finite",
                "failure_message": "loss is nan at step 311, learning rate 1.2e-04",
                "seconds": 80.0,
            }
        return TrialRecord(
            experiment=self.experiment,
            trial_id=self.trial_id,
            attempt=0,
            status=status,
            written_at=START + dt.timedelta(minutes=self.number + (30 if points else 0)),
            started_at=START + dt.timedelta(minutes=self.number),
            ended_at=START + dt.timedelta(minutes=self.number, seconds=seconds) if points else None,
            config_hash=hash_of({**config, "seed": self.seed}),
            config_json=json.dumps({**config, "seed": self.seed}),
            configuration_id=hash_of(config),
            model=self.model.name,
            model_kind=self.model.kind,
            model_source="random" if self.model.random_weights else "hub",
            model_revision=None if self.model.random_weights else "0" * 40,
            random_weights=self.model.random_weights,
            attention="sdpa",
            data="glue",
            data_fingerprint=hash_of({"data": self.eval_split}),
            eval_split=self.eval_split,
            num_train_rows=NUM_TRAIN_ROWS,
            num_dev_rows=NUM_DEV_ROWS,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            weight_decay_form="adamw",
            warmup_fraction=0.06,
            epochs=self.epochs,
            seed=self.seed,
            world_size=1,
            precision="bf16",
            engine="zero2",
            price_per_hour=self.price_per_hour,
            git_commit="1" * 40,
            git_dirty=False,
            versions_json=json.dumps({"sst2-ray": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0"}),
            device="cuda",
            chip="made-up accelerator",
            node_types_json=json.dumps([{"rank": 0, "address": "192.0.2.1", "gpu": "made-up accelerator"}]),
            **ended,
        )

    def _spent(self, seconds: float) -> dict[str, float | None]:
        shares = {"data": 0.02, "forward": 0.31, "backward": 0.46, "communication": 0.05, "optimizer": 0.08}
        return {
            **{f"{name}_seconds": share * seconds for name, share in shares.items()},
            "evaluation_seconds": 3.0,
            "checkpoint_seconds": 1.5,
            "startup_seconds": 9.0,
            "examples_per_sec": self.examples_per_sec,
            "tokens_per_sec": self.examples_per_sec * 13.3,
            "padding_fraction": 0.04,
            "peak_memory_gib": 5.1,
            "cost_usd": None if self.price_per_hour is None else seconds / 3600 * self.price_per_hour,
        }
