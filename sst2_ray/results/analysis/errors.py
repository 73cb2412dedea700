"""Error analysis: what the best models get wrong, where two of them disagree, and how sure they were."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from sst2_ray.results.analysis.comparison import Answers, answers
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.analysis.statistics import Array, Calibration, calibration

MAX_SENTENCES = 60


@dataclass(frozen=True, kw_only=True)
class ModelAnswers:
    """The best configuration of one model, all its seeds together."""

    name: str
    configuration: Configuration
    row_id: Array
    """[sentences]"""
    label: Array
    share_right: Array
    """Share of the seeds that are right, [sentences]."""
    probability: Array
    """Of class 1, mean over the seeds, [sentences]."""
    calibration: Calibration | None
    """None without probabilities."""

    @property
    def predicted(self) -> Array:
        """What the mean probability over the seeds says; without probabilities, what most seeds say."""
        says_positive = np.where(self.label == 1, self.share_right, 1 - self.share_right)
        return (np.where(np.isfinite(self.probability), self.probability, says_positive) >= 0.5).astype(int)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence, as the models see it."""

    row_id: int
    text: str
    label: int
    predicted: tuple[int, ...]
    """By the models, in their order."""
    probability: tuple[float, ...]
    """Of class 1."""


@dataclass(frozen=True, kw_only=True)
class ErrorAnalysis:
    """What there is to say about single sentences of one study."""

    models: list[ModelAnswers]
    wrong: list[Sentence]
    """That the best model gets wrong, the surest first."""
    num_wrong: int
    disagreements: list[Sentence]
    """Between the first two models."""
    num_disagreements: int
    agreement: dict[str, int]
    """Sentences that both, only the first, only the second or neither of the first two models get right."""


def analyse(study: Study) -> ErrorAnalysis | None:
    """The error analysis of a study; None without stored predictions."""
    models = [found for c in study.best_per_model if (found := _model_answers(study, c)) is not None]
    if not models:
        return None
    # Only models that answered the same sentences can stand side by side.
    models = [m for m in models if np.array_equal(m.row_id, models[0].row_id)]
    texts = _texts(study)
    first = models[0]
    confidence = np.abs(first.probability - 0.5)
    wrong = np.flatnonzero(first.predicted != first.label)
    wrong = wrong[np.argsort(-np.nan_to_num(confidence[wrong]), kind="stable")]
    differ = np.array([], dtype=int)
    agreement: dict[str, int] = {}
    if len(models) > 1:
        a, b = first.predicted == first.label, models[1].predicted == first.label
        differ = np.flatnonzero(a != b)
        gap = np.abs(first.probability - models[1].probability)
        differ = differ[np.argsort(-np.nan_to_num(gap[differ]), kind="stable")]
        agreement = {
            "both right": int((a & b).sum()),
            f"only {first.name} right": int((a & ~b).sum()),
            f"only {models[1].name} right": int((b & ~a).sum()),
            "both wrong": int((~a & ~b).sum()),
        }
    return ErrorAnalysis(
        models=models,
        wrong=[_sentence(models, texts, int(i)) for i in wrong[:MAX_SENTENCES]],
        num_wrong=len(wrong),
        disagreements=[_sentence(models[:2], texts, int(i)) for i in differ[:MAX_SENTENCES]],
        num_disagreements=len(differ),
        agreement=agreement,
    )


def _model_answers(study: Study, configuration: Configuration) -> ModelAnswers | None:
    found = [a for run in configuration.runs if (a := answers(run, study.predictions)) is not None]
    same = [a for a in found if np.array_equal(a.row_id, found[0].row_id)]
    if not same:
        return None
    probability = np.stack([a.probability.astype(float) for a in same])
    return ModelAnswers(
        name=model_label(configuration.setting),
        configuration=configuration,
        row_id=same[0].row_id,
        label=same[0].label,
        share_right=np.mean([a.correct for a in same], axis=0),
        probability=probability.mean(axis=0),
        calibration=_calibration(same, probability),
    )


def _calibration(found: list[Answers], probability: Array) -> Calibration | None:
    if not np.isfinite(probability).all():
        return None
    return calibration(probability.ravel(), np.concatenate([a.label for a in found]))


def _texts(study: Study) -> dict[int, str]:
    rows = study.predictions.filter(pc.field("text").is_valid()).select(["row_id", "text"])
    return dict(zip(rows.column("row_id").to_pylist(), rows.column("text").to_pylist(), strict=True))


def _sentence(models: list[ModelAnswers], texts: dict[int, str], index: int) -> Sentence:
    row_id = int(models[0].row_id[index])
    return Sentence(
        row_id=row_id,
        text=texts.get(row_id, ""),
        label=int(models[0].label[index]),
        predicted=tuple(int(m.predicted[index]) for m in models),
        probability=tuple(float(m.probability[index]) for m in models),
    )
