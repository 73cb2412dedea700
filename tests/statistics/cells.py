"""Simulated studies by the thousand: how often the product's own verdicts and intervals are right when the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.comparison import Comparison, compare, possible_bests
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.ranking import Configuration
from sst2_ray.statistics.selection import after_choice
from tests.support.worlds import World, configuration, evidence

ACCURACY = 0.94


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Kind of study with the bounds that its rate must lie in."""

    statement: str
    """Printed statement."""
    truth: str
    num_seeds: str
    rate: Callable[[int, int], float]
    """(number of studies, first seed of the worlds) -> share of studies, 0-1."""
    low: float
    high: float

    @property
    def bounds(self) -> str:
        """Return the bounds in words, in percent."""
        if self.low == 0:
            return f"at most {100 * self.high:g}"
        return f"at least {100 * self.low:g}" if self.high == 1 else f"{100 * self.low:g} to {100 * self.high:g}"


def wins(found: Comparison) -> bool:
    """Tell whether the printed verdict names a winner."""
    return " wins: " in wording.verdict(found)


def _study(
    world: World, models: dict[str, tuple[list[float], int]], *, all_scores: bool = False, num_classes: int = 2
) -> tuple[dict[str, list[Configuration]], Evidence]:
    """Make configurations by model, from their true accuracies and number of seeds, and their stored answers."""
    members: dict[str, list[Configuration]] = {}
    stored = []
    for model, (accuracies, num_seeds) in models.items():
        for i, right in enumerate(world.model(accuracies, num_seeds)):
            one = configuration(f"{model}{i}", right, model=model, all_scores=all_scores)
            members.setdefault(model, []).append(one)
            stored.append((one, right))
    return members, evidence(stored, num_classes=num_classes)


def _share(judge: Callable[[World], bool], **options: float) -> Callable[[int, int], float]:
    def rate(num_studies: int, first: int) -> float:
        return float(np.mean([judge(World(first + i, **options)) for i in range(num_studies)]))  # type: ignore[arg-type]

    return rate


def between(
    num_seeds: tuple[int, int], *, accuracy: float = ACCURACY, metric: str = "accuracy", num_classes: int = 2
) -> Callable[[World], bool]:
    """Make the judge of a win between two models of one configuration each; the second has the given accuracy."""

    def judge(world: World) -> bool:
        sides = {"a": ([ACCURACY], num_seeds[0]), "b": ([accuracy], num_seeds[1])}
        binary = num_classes == 2
        members, found = _study(world, sides, all_scores=metric != "accuracy" and binary, num_classes=num_classes)
        return wins(compare(members["a"][0], members["b"][0], found, metric=metric))

    return judge


def within(num_seeds: int) -> Callable[[World], bool]:
    """Make the judge of a win between two configurations of one model."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY] * 2, num_seeds)})
        return wins(compare(*members["a"], found))

    return judge


def covers_score(num_seeds: int) -> Callable[[World], bool]:
    """Make the judge of whether the interval of an accuracy covers the truth."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY] * 4, num_seeds)})
        estimate = found.estimate(members["a"][0])
        return estimate is not None and estimate.interval.low <= ACCURACY <= estimate.interval.high

    return judge


def covers_chosen(num: int, num_seeds: int) -> Callable[[World], bool]:
    """Make the judge of whether the interval of the best of equal configurations, corrected for the choice, covers the truth."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY] * num, num_seeds)})
        estimate, search = found.estimate(max(members["a"], key=_mean)), found.search(members["a"])
        assert estimate is not None and search is not None
        corrected = after_choice(estimate.interval, search.bias_of_best())
        return corrected.low <= ACCURACY <= corrected.high

    return judge


TRUTHS = {"f1": ACCURACY, "mcc": 2 * ACCURACY - 1, "loss": -ACCURACY * math.log(0.9) - (1 - ACCURACY) * math.log(0.1)}
"""Scores of answers to as many positive as negative sentences, each given with a probability of 0.9."""


def covers_metric(metric: str, num_seeds: int) -> Callable[[World], bool]:
    """Make the judge of whether the interval of another score than accuracy covers the truth."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY] * 2, num_seeds)})
        estimate = found.estimate(members["a"][0], metric)
        return estimate is not None and estimate.interval.low <= TRUTHS[metric] <= estimate.interval.high

    return judge


def covers_difference(num_seeds: int) -> Callable[[World], bool]:
    """Make the judge of whether the interval of a difference covers the truth, 1 point."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY], num_seeds), "b": ([ACCURACY - 0.01], num_seeds)})
        estimate = compare(members["a"][0], members["b"][0], found).estimate
        return estimate is not None and estimate.interval.low <= 0.01 <= estimate.interval.high

    return judge


def searched(sizes: tuple[int, int], num_seeds: int, *, second: float = ACCURACY) -> Callable[[World], bool]:
    """Make the judge of a win between the best of two searches of so many equal configurations."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY] * sizes[0], num_seeds), "b": ([second] * sizes[1], num_seeds)})
        best = [max(side, key=_mean) for side in members.values()]
        return wins(compare(best[0], best[1], found, searched=list(members.values())))

    return judge


def _mean(c: Configuration) -> float:
    summary = c.summary("best_dev_accuracy")
    assert summary is not None
    return summary.mean


def best_is_in_set(gap: float, num_seeds: int, num: int = 15) -> Callable[[World], bool]:
    """Make the judge of whether the truly best of configurations `gap` apart is among those that may be the best."""

    def judge(world: World) -> bool:
        members, found = _study(world, {"a": ([ACCURACY - gap * i for i in range(num)], num_seeds)})
        bests = possible_bests(sorted(members["a"], key=lambda c: -_mean(c)), found)
        return bests is not None and members["a"][0] in bests.configurations

    return judge


def ties(difference: float, num_sentences: int) -> Callable[[World], bool]:
    """Make the judge of whether a tie is printed of two whose true difference is the margin."""

    def judge(world: World) -> bool:
        assert world.num_sentences == num_sentences
        members, found = _study(world, {"a": ([ACCURACY], 3), "b": ([ACCURACY - difference], 3)})
        return "a tie: " in wording.verdict(compare(members["a"][0], members["b"][0], found))

    return judge


NO_WIN, COVERED = (0.025, 0.065), (0.93, 0.97)


def cells() -> list[Cell]:
    """List all cells."""
    found = []
    for effect in (0.0, 0.4):
        noise = f", runs vary by {effect:g} points as a whole" if effect else ""
        for n in (2, 3, 5, 10):
            options = {"run_effect_points": effect}
            for statement, judge, (low, high) in (
                ("wins, between models", between((n, n)), NO_WIN),
                ("wins, within a model", within(n), NO_WIN),
                ("interval of an accuracy covers it", covers_score(n), COVERED),
                ("interval of a difference covers it", covers_difference(n), COVERED),
            ):
                truth = "1 point apart" if "difference" in statement else "equal"
                found.append(
                    Cell(
                        statement=statement, truth=truth + noise, num_seeds=str(n),
                        rate=_share(judge, **options), low=low, high=high,
                    )
                )  # fmt: skip
    for statement, truth, n, judge, low, high in (
        ("wins, between models", "equal", "2 and 5", between((2, 5)), *NO_WIN),
        ("wins in F1, between models", "equal", "3", between((3, 3), metric="f1"), *NO_WIN),
        ("wins in loss, between models", "equal", "3", between((3, 3), metric="loss"), *NO_WIN),
        ("wins in macro F1 of 5 classes", "equal", "3", between((3, 3), metric="f1", num_classes=5), *NO_WIN),
        ("wins in MCC of 5 classes", "equal", "3", between((3, 3), metric="mcc", num_classes=5), *NO_WIN),
        ("interval of an F1 covers it", "equal", "3", covers_metric("f1", 3), *COVERED),
        ("interval of an MCC covers it", "equal", "3", covers_metric("mcc", 3), *COVERED),
        ("interval of a loss covers it", "equal", "3", covers_metric("loss", 3), *COVERED),
        ("interval of the best of 15 covers it", "equal", "3", covers_chosen(15, 3), *COVERED),
        ("interval of the best of 45 covers it", "equal", "3", covers_chosen(45, 3), *COVERED),
        ("wins, best of 15 against 1", "equal", "3", searched((15, 1), 3), 0.0, 0.06),
        ("wins, best of 10 against best of 10", "equal", "3", searched((10, 10), 3), 0.0, 0.06),
        ("wins, best of 10 against best of 10", "2 points apart", "2", searched((10, 10), 2, second=0.92), 0.70, 1.0),
        ("wins, best of 10 against best of 10", "2 points apart", "3", searched((10, 10), 3, second=0.92), 0.78, 1.0),
        ("truly best may be the best", "15, 0.1 points apart", "3", best_is_in_set(0.001, 3), 0.94, 1.0),
        ("truly best may be the best", "15, 1 point apart", "3", best_is_in_set(0.01, 3), 0.94, 1.0),
    ):
        found.append(Cell(statement=statement, truth=truth, num_seeds=n, rate=_share(judge), low=low, high=high))
    found.append(
        Cell(
            statement="a tie (±0.5 points), 6,000 sentences", truth="0.5 points apart", num_seeds="3",
            rate=_share(ties(0.005, 6000), num_sentences=6000), low=0.0, high=0.06,
        )
    )  # fmt: skip
    return found
