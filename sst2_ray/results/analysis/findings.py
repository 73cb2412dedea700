"""What a results table says about one evaluation split: the best configurations, how they compare, what was not measured.

Everything that the report shows in words and tables is computed here; figures and HTML only lay it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.records import Status
from sst2_ray.results.analysis.comparison import FEW_SEEDS, Comparison, compare
from sst2_ray.results.analysis.curves import Curves, load_curves
from sst2_ray.results.analysis.head_to_head import HeadToHead, duellists, head_to_head
from sst2_ray.results.analysis.published import SST2_DEV
from sst2_ray.results.analysis.ranking import (
    Configuration,
    Edge,
    RankedGroup,
    grid_edge,
    model_label,
    rank,
    searched_axes,
)
from sst2_ray.results.store.table import ResultsTable

MAX_CURVES = 400
"""Trials whose curves one figure shows."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The trials that were evaluated on the same sentences."""

    eval_split: str | None
    data_fingerprint: str | None
    trials: pa.Table
    """Latest attempts of all its trials, whatever became of them."""
    groups: tuple[RankedGroup, ...]
    """Rankings, most seeds first; empty where no trial succeeded."""
    curves: Curves
    curve_split: str
    """dev, or selection where the runs were evaluated on a held-out part of train on the way."""
    predictions: pa.Table
    """Those of the best configuration of each model, and of those that are compared."""
    best_per_model: tuple[Configuration, ...]
    against_best: tuple[Comparison | None, ...]
    """Each of `best_per_model` against the first; None for the first itself and for other numbers of seeds."""
    runner_up: Comparison | None
    """The best configuration against the second best of the same ranking."""
    num_tied: int
    """Configurations of the ranking, besides the best, that cannot be told from it."""
    head_to_head: HeadToHead | None
    edges: tuple[tuple[str, Edge], ...]
    """Model and axis whose best value is the last that was tried."""

    @property
    def title(self) -> str:
        return self.eval_split or "evaluation data not named"

    @property
    def is_sst2(self) -> bool:
        return self.eval_split == SST2_DEV

    @property
    def curves_on(self) -> str:
        """The sentences of the curves' evaluations, in words."""
        return "dev" if self.curve_split == "dev" else "held-out part of train"

    @property
    def main(self) -> RankedGroup | None:
        """The ranking with the most seeds."""
        return self.groups[0] if self.groups else None

    @property
    def configurations(self) -> list[Configuration]:
        return [c for group in self.groups for c in group.configurations]

    @property
    def axes(self) -> list[str]:
        return searched_axes(self.configurations) if self.groups else []


def studies(table: ResultsTable, trials: pa.Table) -> list[Study]:
    """One study for each set of evaluation sentences, those with the most succeeded trials first.

    trials: the latest attempts with all columns.
    """
    splits: dict[tuple[str | None, str | None], int] = {}
    columns = (trials.column(name).to_pylist() for name in ("eval_split", "data_fingerprint", "status"))
    for split, fingerprint, status in zip(*columns, strict=True):
        splits[split, fingerprint] = splits.get((split, fingerprint), 0) + (status == Status.SUCCEEDED)
    found = []
    for split, fingerprint in sorted(splits, key=lambda key: (-splits[key], str(key))):
        mine = trials.filter(_equals("eval_split", split) & _equals("data_fingerprint", fingerprint))
        found.append(_study(table, mine, split, fingerprint))
    return found


def _equals(column: str, value: str | None) -> pc.Expression:
    return pc.field(column).is_null() if value is None else pc.field(column) == value


def _study(table: ResultsTable, trials: pa.Table, split: str | None, fingerprint: str | None) -> Study:
    groups = rank(trials)
    curves, curve_split = _curves(table, trials, groups)
    best = _best_per_model(groups)
    _, *duel = duellists(groups) or (None,)
    predictions = _predictions(table, [*best, *duel, *(groups[0].configurations[:2] if groups else ())])
    main = groups[0] if groups else None
    against = tuple(_against(main, best[0], other, predictions) if main else None for other in best)
    runner_up = None
    num_tied = 0
    if main and len(main.configurations) > 1:
        runner_up = compare(*main.configurations[:2], predictions=predictions, metric=main.metric)
        num_tied = _count_ties(main)
    return Study(
        eval_split=split,
        data_fingerprint=fingerprint,
        trials=trials,
        groups=tuple(groups),
        curves=curves,
        curve_split=curve_split,
        predictions=predictions,
        best_per_model=tuple(best),
        against_best=against,
        runner_up=runner_up,
        num_tied=num_tied,
        head_to_head=head_to_head(groups, curves, curve_split, predictions),
        edges=_edges(trials, groups),
    )


def _curves(table: ResultsTable, trials: pa.Table, groups: Sequence[RankedGroup]) -> tuple[Curves, str]:
    """The curves of the best configurations first, then of the other trials, up to `MAX_CURVES`."""
    wanted = [(run.experiment, run.trial_id) for c in _best_per_model(groups) for run in c.runs]
    others = zip(trials.column("experiment").to_pylist(), trials.column("trial_id").to_pylist(), strict=True)
    wanted = list(dict.fromkeys([*wanted, *others]))[:MAX_CURVES]
    chosen_elsewhere = bool(groups) and groups[0].metric == "selection_accuracy"
    for split in ("selection", "dev") if chosen_elsewhere else ("dev", "selection"):
        curves = load_curves(table, wanted, split=split)
        if curves:
            return curves, split
    return {}, "dev"


def _predictions(table: ResultsTable, configurations: Sequence[Configuration]) -> pa.Table:
    runs = [run for configuration in configurations for run in configuration.runs]
    return table.read(
        "predictions",
        experiment={run.experiment for run in runs},
        trial_ids={run.trial_id for run in runs},
        attempts="latest",
    )


def _best_per_model(groups: Sequence[RankedGroup]) -> list[Configuration]:
    """The best configuration of each model in the ranking with the most seeds that it is in; best of the first first."""
    best: dict[str, Configuration] = {}
    for group in groups:
        for configuration in group.best_per_model():
            best.setdefault(model_label(configuration.setting), configuration)
    return list(best.values())


def _against(main: RankedGroup, best: Configuration, other: Configuration, predictions: pa.Table) -> Comparison | None:
    if other is best or other not in main.configurations:
        return None
    return compare(best, other, predictions=predictions, metric=main.reported(best, other))


def _count_ties(main: RankedGroup) -> int:
    """Over seeds alone, as predictions are read for the best few only; so of few seeds nothing is said."""
    if main.num_seeds < FEW_SEEDS:
        return 0
    return sum(compare(main.best, other, metric=main.metric).verdict != "win" for other in main.configurations[1:])


def _edges(trials: pa.Table, groups: Sequence[RankedGroup]) -> tuple[tuple[str, Edge], ...]:
    if not groups:
        return ()
    tried = defaultdict(set)  # also by trials that a scheduler stopped, or that diverged
    for row in trials.select(["model", "random_weights", "learning_rate"]).to_pylist():
        if row["learning_rate"]:
            tried[model_label(row.get)].add(row["learning_rate"])
    found = []
    for configuration in groups[0].best_per_model():
        model = model_label(configuration.setting)
        edge = grid_edge(tried[model], configuration)
        if edge is not None:
            found.append((model, edge))
    return tuple(found)
