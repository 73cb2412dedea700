"""Values of the aims: how each is computed from the figures in benchmarks/results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Mapping[str, Any]]
"""Figures by file name."""


@dataclass(frozen=True)
class Ratio:
    """Ratio of two ways' rates in a file of `throughput`."""

    file: str
    way: str
    than: str

    def __call__(self, found: Found) -> float:
        """Return the ratio of the medians."""
        return statistics.median(self._rates(found)[self.way]) / statistics.median(self._rates(found)[self.than])

    def rounds(self, found: Found) -> list[float]:
        """Return the ratio of every round: what a machine that is now faster, now slower makes of it."""
        rates = self._rates(found)
        return [one / other for one, other in zip(rates[self.way], rates[self.than], strict=True)]

    def _rates(self, found: Found) -> Mapping[str, list[float]]:
        rates: Mapping[str, list[float]] = found[self.file]["examples_per_sec"]
        return rates


def of_workers(name: str) -> Callable[[Found], float]:
    """Make the function that computes two workers' median rate over one's."""

    def value(found: Found) -> float:
        runs = found[name]["runs"]
        two, one = (statistics.median(run["examples_per_sec"] for run in runs[count]) for count in ("2", "1"))
        return two / one

    return value


def of_accuracy(way: str) -> Callable[[Found], float]:
    """Return by how many points of dev accuracy the main job may be behind `way`: the lower end of the interval, below 0."""

    def value(found: Found) -> float:
        return max(-found["accuracy.json"]["differences"][way][1], 0.0)

    return value


def leaderboard(found: Found) -> float:
    """Return the median seconds of `results` over the large table as runs leave it."""
    return statistics.median(run["seconds"] for run in found["results_table.json"]["merged"])


def share_of_products(found: Found) -> float:
    """Compute model FLOP/s of the main job over what matrix products reach, in percent."""
    figures = found["throughput-64.json"]
    rate = statistics.median(figures["examples_per_sec"]["main-job"])
    return 100 * rate * figures["model_flops_per_example"] / statistics.median(figures["matmul_flops"])


def of_evaluation(found: Found) -> float:
    rates = found["evaluation.json"]["tokens_per_sec"]
    return statistics.median(rates["evaluation"]) / statistics.median(rates["training"])


def of_forecast(quantity: str) -> Callable[[Found], float]:
    """Make the function that finds the largest error, in percent."""

    def value(found: Found) -> float:
        runs = found["forecast.json"]["runs"]
        return max(100 * abs(run["predicted"][quantity] / run["measured"][quantity] - 1) for run in runs)

    return value


def worst_first_line(found: Found) -> float:
    """Return the largest median of the seconds to a command's first line."""
    return max(statistics.median(runs) for runs in found["commands.json"]["first_line_s"].values())


def of_command(title: str) -> Callable[[Found], float]:
    """Make the function that finds the median seconds of a whole command."""

    def value(found: Found) -> float:
        return statistics.median(found["commands.json"]["end_s"][title])

    return value


def of_gpu(figure: str, *, batch: int, way: str, file: str = "gpu-probe-h200-short.json") -> Callable[[Found], float]:
    """Make the function that finds a figure of the probe on a GPU."""

    def value(found: Found) -> float:
        rows = found[file]["rows"]
        (row,) = (row for row in rows if (row["batch"], row["way"]) == (batch, way))
        return float(row[figure])

    return value


def of_restarts(found: Found) -> float:
    """Return the mean seconds of an attempt after a killed worker until its first step."""
    runs = [run["goodput"] for run in found["goodput-short.json"]["runs"] if run["kills"]]
    return float(sum(run["restarts"] for run in runs) / sum(run["num_restarts"] for run in runs))


def after_lost_nodes(found: Found) -> float:
    """Return the most seconds beyond Ray's detection of a killed node to the first step of the next attempt."""
    return float(max(loss["beyond_s"] for run in found["goodput-node.json"]["runs"] for loss in run["losses"]))


def faster_sweep(found: Found) -> float:
    """Return the median time of a sweep at the earlier commit over that of today's."""
    seconds = found["sweep-before.json"]["seconds"]
    return statistics.median(seconds["before"]) / statistics.median(seconds["now"])


def of_kills(num_kills: int) -> Callable[[Found], float]:
    """Make the function that finds the goodput in per cent of runs with so many killed workers."""

    def value(found: Found) -> float:
        shares = [100 * run["goodput"]["share"] for run in found["goodput.json"]["runs"] if run["kills"] == num_kills]
        if not shares:
            raise KeyError(num_kills)
        return statistics.median(shares)

    return value


def of_many_rows(
    what: str, figure: str = "s", *, tenth: bool = False, cores: int | None = None
) -> Callable[[Found], float]:
    """Make the function that finds a figure of millions of rows.

    Args:
        what: of the benchmark's ways.
        figure: seconds or memory.
        tenth: of a tenth of the rows; else of all.
        cores: that it ran on; None: all.
    """

    def value(found: Found) -> float:
        told = found["many-rows.json"]
        rows = told["rows"] // 10 if tenth else told["rows"]
        some = [run for run in told["runs"] if run["what"] == what and run["rows"] == rows]
        (run,) = [run for run in some if run["cores"] == (cores or max(one["cores"] for one in some))]
        return float(run[figure])

    return value


def ratio(one: Callable[[Found], float], other: Callable[[Found], float]) -> Callable[[Found], float]:
    """Make the function that divides one value by another."""
    return lambda found: one(found) / other(found)


def of_start(way: str) -> Callable[[Found], float]:
    """Make the function that finds the median seconds from the command to the first step."""

    def value(found: Found) -> float:
        return statistics.median(run["first_step_s"] for run in found["startup.json"]["runs"][way])

    return value
