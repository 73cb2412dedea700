"""Reasons for which stored answers to single sentences are missing or cannot be used, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import numpy as np

from sst2_ray.results.analysis.ranking import Run
from sst2_ray.statistics.scores import Array


class Lack(Enum):
    """A reason: about one configuration ("it"), and about named ones."""

    NOT_STORED = (
        "its predictions on the single sentences were not stored",
        "the predictions of {} on the single sentences were not stored",
    )
    NOT_READ = (
        "its predictions were not read, for it is not among the best 200",
        "the predictions of {} were not read, for only those of the best 200 are",
    )
    ONE_SENTENCE = (
        "one sentence does not tell how much sentences vary",
        "the one sentence of {} does not tell how much sentences vary",
    )
    NO_LABELS = (
        "its predictions hold sentences without a label or an answer",
        "the predictions of {} hold sentences without a label or an answer",
    )
    OTHER_EVALUATION = (
        "its stored predictions are of another evaluation than its score",
        "the stored predictions of {} are of another evaluation than the score",
    )
    OTHER_SENTENCES = ("its runs answered different sentences", "the runs of {} answered different sentences")
    NO_PROBABILITIES = (
        "the probabilities of its answers were not stored",
        "the probabilities of the answers of {} were not stored",
    )
    LOSS_OF_CLASSES = ("of more than two classes the loss on single sentences is not stored",) * 2
    NOT_DEFINED = ("the metric is not defined on its sentences", "the metric is not defined on the sentences of {}")

    @property
    def of_it(self) -> str:
        """Return the reason with the configuration as 'it'."""
        return str(self.value[0])

    def of(self, names: Iterable[str]) -> str:
        """Return the reason with the names of those that it holds for."""
        return str(self.value[1]).format(" and of ".join(names))


def reasons(lacking: Iterable[tuple[str, Lack]]) -> str:
    """Say why configurations lack answers, given as (name, reason), a clause for each reason."""
    names: dict[Lack, list[str]] = {}
    for name, lack in lacking:
        names.setdefault(lack, []).append(name)
    return "; ".join(lack.of(found) for lack, found in names.items())


def lack_of(runs: Sequence[Run], stored: Sequence[Array | None]) -> Lack | None:
    """Return why the answers of a configuration's runs cannot be used; None when they can.

    Args:
        runs: Its runs.
        stored: Row id, label, answer, probability and step of each run, [5, sentences]; None: not stored.
    """
    known = [a for a in stored if a is not None]
    if len(known) < len(stored):
        return Lack.NOT_STORED
    steps = [run.values.get("best_global_step") for run in runs]
    if any(step is not None and not (a[4] == step).all() for step, a in zip(steps, known, strict=True)):
        return Lack.OTHER_EVALUATION
    if not all(np.isfinite(a[:3]).all() for a in known):
        return Lack.NO_LABELS
    if any(not np.array_equal(a[:2], known[0][:2]) for a in known):
        return Lack.OTHER_SENTENCES
    return Lack.ONE_SENTENCE if known[0].shape[1] < 2 else None
