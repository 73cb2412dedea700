"""Error analysis: sentences that the best models get wrong or disagree on, and how sure they were."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.ranking import Configuration, model_label
from sst2_ray.results.analysis.sample import Sample
from sst2_ray.statistics.scores import Array, Calibration, calibration
from sst2_ray.statistics.temperature import uncalibrated

MAX_SENTENCES = 60


@dataclass(frozen=True, kw_only=True)
class ModelAnswers:
    """Answers of the best configuration of a model, over all its seeds."""

    name: str
    configuration: Configuration
    row_id: Array
    """[sentences]"""
    label: Array
    share_right: Array
    """Share of seeds that are right, [sentences]."""
    probability: Array
    """Mean probability of class 1 over the seeds, [sentences]."""
    calibration: Calibration | None
    """None without probabilities, and for more than two classes."""
    uncalibrated: Calibration | None
    """Before temperature and threshold; None: a run was not calibrated."""
    majority: Array | None
    """Most frequent answer of the seeds where there are more than two classes, [sentences]; None: there are two."""
    class_names: tuple[str, ...]

    @property
    def confusion(self) -> Array:
        """Sentences of each label (first index) with each answer (second)."""
        num = len(self.class_names)
        return np.bincount(self.label * num + self.predicted, minlength=num * num).reshape(num, num)

    @property
    def predicted(self) -> Array:
        """Answers by the mean probability over the seeds; without probabilities, or of many classes, by the majority."""
        if self.majority is not None:
            return self.majority
        says_positive = np.where(self.label == 1, self.share_right, 1 - self.share_right)
        return (np.where(np.isfinite(self.probability), self.probability, says_positive) >= 0.5).astype(int)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence with the answers of the models."""

    row_id: int
    text: str
    label: int
    predicted: tuple[int, ...]
    """Answers of the models, in their order."""
    probability: tuple[float, ...]
    """Probabilities of class 1."""


@dataclass(frozen=True, kw_only=True)
class ErrorAnalysis:
    """Findings on single sentences of a study."""

    models: list[ModelAnswers]
    wrong: list[Sentence]
    """Sentences that the best model gets wrong, the surest first."""
    num_wrong: int
    disagreements: list[Sentence]
    """Sentences that exactly one of the first two models gets right."""
    num_disagreements: int
    class_names: tuple[str, ...]
    agreement: dict[str, int]
    """Counts of sentences that both, only the first, only the second or neither of the first two models get right."""


def analyze(study: Study) -> ErrorAnalysis | None:
    """Analyze the errors of a study; None without stored predictions."""
    models = [found for c in study.best_per_model if (found := _model_answers(study, c)) is not None]
    if not models:
        return None
    # Only models that answered the same sentences can stand side by side.
    models = [m for m in models if np.array_equal(m.row_id, models[0].row_id)]
    texts = study.texts
    first = models[0]
    confidence = first.probability if first.majority is not None else np.abs(first.probability - 0.5)
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
        class_names=first.class_names,
        agreement=agreement,
    )


def _model_answers(study: Study, configuration: Configuration) -> ModelAnswers | None:
    sample = study.on_dev.sample(configuration)
    if sample is None or sample.is_values:
        return None
    finite = bool(np.isfinite(sample.probability).all()) and not sample.is_multiclass
    names = tuple(json.loads(configuration.setting("class_names_json") or '["negative", "positive"]'))
    num = max(len(names), int(max(sample.label.max(), sample.predicted.max())) + 1)
    names += tuple(str(number) for number in range(len(names), num))
    votes = np.stack([(sample.predicted == number).sum(axis=0) for number in range(num)])  # [classes, sentences]
    return ModelAnswers(
        name=model_label(configuration.setting),
        configuration=configuration,
        row_id=sample.row_id,
        label=sample.label,
        share_right=sample.correct.mean(axis=0),
        probability=sample.probability.mean(axis=0),
        calibration=calibration(sample.probability, sample.label) if finite else None,
        uncalibrated=_before(configuration, sample) if finite else None,
        majority=votes.argmax(axis=0) if sample.is_multiclass else None,
        class_names=names,
    )


def _before(configuration: Configuration, sample: Sample) -> Calibration | None:
    """Compute the calibration without the temperatures and thresholds of the runs; None: a run has none."""
    temperatures, thresholds = configuration.metric("temperature"), configuration.metric("decision_threshold")
    if temperatures is None or thresholds is None:
        return None
    rows = zip(sample.probability, temperatures, thresholds, strict=True)
    before = np.array([uncalibrated(row, temperature=t, threshold=at) for row, t, at in rows])
    return calibration(before, sample.label)


def _sentence(models: list[ModelAnswers], texts: dict[int, str], index: int) -> Sentence:
    row_id = int(models[0].row_id[index])
    return Sentence(
        row_id=row_id,
        text=texts.get(row_id, ""),
        label=int(models[0].label[index]),
        predicted=tuple(int(m.predicted[index]) for m in models),
        probability=tuple(float(m.probability[index]) for m in models),
    )
