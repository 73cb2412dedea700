"""Simulated studies in which the truth is known, and their answers as the results table holds them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration, Run
from sst2_ray.results.analysis.sample import Sample
from sst2_ray.statistics.scores import f1


@functools.lru_cache
def _correlation(discordant: float, accuracy: float) -> float:
    """Find the correlation of two latent normals whose signs differ with probability `discordant`.

    Each of them is positive with probability `accuracy`.
    """
    threshold = norm.ppf(1 - accuracy)

    def excess(correlation: float) -> float:
        both_wrong = multivariate_normal.cdf([threshold] * 2, mean=[0, 0], cov=[[1, correlation], [correlation, 1]])
        return 2 * ((1 - accuracy) - both_wrong) - discordant

    return float(brentq(excess, 0.0, 0.9999))


class World:
    """A test set and what all studies on it have in common: a latent probit model with crossed effects.

    Effects: difficulty of a sentence (shared by all models), model x sentence, configuration x sentence, run x sentence,
    and a main effect of a run of `run_effect_points`. The `discordant` shares are those of sentences on which two seeds of
    a configuration, two configurations of a model, and two models disagree. The truth of a configuration is its accuracy
    over new sentences and new seeds.
    """

    def __init__(
        self,
        seed: int,
        *,
        num_sentences: int = 872,
        accuracy: float = 0.94,
        discordant: tuple[float, float, float] = (0.03, 0.035, 0.055),
        run_effect_points: float = 0.0,
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.num_sentences = num_sentences
        seeds, configurations, models = (_correlation(share, accuracy) for share in discordant)
        self._scales = np.sqrt([models, configurations - models, seeds - configurations, 1 - seeds])
        self._effect = run_effect_points / 100 / norm.pdf(norm.ppf(accuracy))
        self._difficulty = self.random.standard_normal(num_sentences)

    def model(self, accuracies: Sequence[float], num_seeds: int) -> np.ndarray:
        """Draw another model with one configuration per accuracy: bool [configurations, seeds, sentences], True where right."""
        draw, num = self.random.standard_normal, len(accuracies)
        shared, model, configuration, run = self._scales
        latent = shared * self._difficulty + model * draw(self.num_sentences)
        latent = latent + configuration * draw((num, 1, self.num_sentences))
        latent = latent + run * draw((num, num_seeds, self.num_sentences))
        latent = latent + self._effect * draw((num, num_seeds, 1))
        thresholds = norm.ppf(np.asarray(accuracies)) * np.sqrt(1 + self._effect**2)
        return latent + thresholds[:, None, None] > 0


def labels_of(right: np.ndarray, num_classes: int = 2) -> np.ndarray:
    """Return labels, equally many of each class; of two, half are positive."""
    return np.arange(right.shape[-1]) % num_classes


def configuration(name: str, correct: np.ndarray, *, model: str = "sbert", all_scores: bool = True) -> Configuration:
    """Make runs with these right answers, bool [seeds, sentences]; all_scores: F1 and loss as well as accuracy."""
    settings = {"model": model, "model_kind": model, "learning_rate": 8e-5, "batch_size": 32, "best_global_step": 100}
    runs = []
    for seed, row in enumerate(correct):
        scores = {"best_dev_accuracy": float(row.mean())}
        if all_scores:
            label = labels_of(row)
            scores["best_dev_f1"] = f1(label, np.where(row, label, 1 - label))
            scores["best_dev_loss"] = float(-np.log(np.where(row, 0.9, 0.1)).mean())
        runs.append(Run(experiment="e", trial_id=f"{name}-{seed}", seed=seed, values={**settings, **scores}))
    return Configuration(configuration_id=name, runs=tuple(runs))


def evidence(
    correct: dict[Configuration, np.ndarray] | Sequence[tuple[Configuration, np.ndarray]], *, num_classes: int = 2
) -> Evidence:
    """Make the stored answers of configurations; None for one whose predictions were not stored.

    A wrong answer is the next class, which of more than two is always the same one of a label.
    """
    pairs = list(correct.items()) if isinstance(correct, dict) else list(correct)
    samples = {}
    for one, right in pairs:
        if right is None:
            continue
        label = labels_of(right, num_classes)
        predicted = np.where(right, label, (label + 1) % num_classes)
        samples[one.configuration_id] = Sample(
            row_id=np.arange(right.shape[1]),
            label=label,
            predicted=predicted,
            probability=np.where(predicted == 1, 0.9, 0.1),
        )
    return Evidence(configurations=tuple(one for one, _ in pairs), samples=samples, split="dev")
