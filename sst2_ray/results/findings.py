"""What a results table says about one evaluation split: the best configurations, how they compare, what was not measured.

Everything that the report shows in words and tables is computed here; figures and HTML only lay it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.results import text
from sst2_ray.results.comparison import Comparison, compare, pairing
from sst2_ray.results.curves import Curves, load_curves
from sst2_ray.results.ranking import (
    Configuration,
    Edge,
    RankedGroup,
    grid_edge,
    model_label,
    rank,
    searched_axes,
)
from sst2_ray.results.table import ResultsTable

SST2_DEV = "SST-2 dev"
MAX_CURVES = 400
"""Trials whose curves one figure shows."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published accuracy on SST-2 dev."""

    name: str
    short: str
    """For the edge of a figure."""
    accuracy: float
    digits: int
    """After the point, of the accuracy in per cent, as it was published."""
    source: str


REFERENCES = (
    Reference(
        name="ModernBERT-base, paper",
        short="ModernBERT, paper",
        accuracy=0.960,
        digits=1,
        source="Warner et al. 2024 (arXiv 2412.13663), table 5",
    ),
    Reference(
        name="BERT-base, paper",
        short="BERT, paper",
        accuracy=0.931,
        digits=1,
        source="the same table",
    ),
    Reference(
        name="ModernBERT-base, notebook study",
        short="ModernBERT, notebook",
        accuracy=0.9472,
        digits=2,
        source="best of 20 epochs, batch 32, padded to 128 tokens, one seed",
    ),
    Reference(
        name="SBERT, notebook study",
        short="SBERT, notebook",
        accuracy=0.9243,
        digits=2,
        source="bert-base-nli-mean-tokens, best of 10 epochs, batch 32, one seed",
    ),
)
PAPER_LEARNING_RATE = 8e-5


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Two configurations at the same point of their training."""

    title: str
    detail: str
    """Which evaluations are compared."""
    comparisons: tuple[Comparison, ...]
    """Accuracy, F1 and loss, as far as both recorded them; empty where one had no evaluation by then."""


@dataclass(frozen=True, kw_only=True)
class HeadToHead:
    """The best ModernBERT against the best SBERT."""

    modernbert: Configuration
    sbert: Configuration
    overall: Comparison
    moments: tuple[Moment, ...]


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
    """dev, or selection where only the held-out part of train was evaluated on the way."""
    predictions: pa.Table
    """Those of the best configuration of each model."""
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
        splits[split, fingerprint] = splits.get((split, fingerprint), 0) + (status == "succeeded")
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
    predictions = _predictions(table, [*best, *(groups[0].configurations[:2] if groups else ())])
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
        head_to_head=_head_to_head(groups, curves, predictions),
        edges=_edges(groups),
    )


def _curves(table: ResultsTable, trials: pa.Table, groups: Sequence[RankedGroup]) -> tuple[Curves, str]:
    """The curves of the best configurations first, then of the other trials, up to `MAX_CURVES`."""
    wanted = [(run.experiment, run.trial_id) for c in _best_per_model(groups) for run in c.runs]
    others = zip(trials.column("experiment").to_pylist(), trials.column("trial_id").to_pylist(), strict=True)
    wanted = list(dict.fromkeys([*wanted, *others]))[:MAX_CURVES]
    for split in ("dev", "selection"):
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
    return compare(best, other, predictions=predictions, metric=main.metric)


def _count_ties(main: RankedGroup) -> int:
    """Over seeds alone: predictions are read for the best few only."""
    return sum(compare(main.best, other, metric=main.metric).verdict != "win" for other in main.configurations[1:])


def _edges(groups: Sequence[RankedGroup]) -> tuple[tuple[str, Edge], ...]:
    if not groups:
        return ()
    found = []
    for configuration in groups[0].best_per_model():
        edge = grid_edge(groups[0].configurations, configuration)
        if edge is not None:
            found.append((model_label(configuration.setting), edge))
    return tuple(found)


def _head_to_head(groups: Sequence[RankedGroup], curves: Curves, predictions: pa.Table) -> HeadToHead | None:
    """In the first ranking that has both kinds: the same data, as many seeds for both. A model that began with random
    weights stands in for its kind only where there is no pretrained one."""
    for group in groups:
        by_kind: dict[Any, Configuration] = {}
        for configuration in sorted(group.configurations, key=lambda c: bool(c.setting("random_weights"))):
            by_kind.setdefault(configuration.setting("model_kind"), configuration)
        if "modernbert" in by_kind and "sbert" in by_kind:
            a, b = by_kind["modernbert"], by_kind["sbert"]
            return HeadToHead(
                modernbert=a,
                sbert=b,
                overall=compare(a, b, predictions=predictions, metric=group.metric),
                moments=_moments(a, b, curves, predictions),
            )
    return None


def _moments(a: Configuration, b: Configuration, curves: Curves, predictions: pa.Table) -> tuple[Moment, ...]:
    """The two after equally many epochs, and after equally long training: as much as both of them had."""
    mine = [_run_curves(c, curves) for c in (a, b)]
    if not all(mine):
        return ()
    epochs = min(float(curve.epoch[-1]) for found in mine for curve in found.values())
    moments = [
        Moment(
            title="at equal epochs",
            detail=f"the best evaluation up to epoch {epochs:g}",
            comparisons=_compared(a, b, mine, predictions, epochs=epochs),
        )
    ]
    totals = [np.mean([float(curve.seconds[-1]) for curve in found.values()]) for found in mine]
    if np.isfinite(totals).all():
        seconds = float(min(totals))
        moments.append(
            Moment(
                title="at equal time",
                detail=f"the best evaluation in the first {text.duration(seconds)} of training",
                comparisons=_compared(a, b, mine, predictions, seconds=seconds),
            )
        )
    return tuple(moments)


def _run_curves(configuration: Configuration, curves: Curves) -> dict[Any, Any]:
    found = {pairing(run): curves.get((run.experiment, run.trial_id)) for run in configuration.runs}
    return found if all(curve is not None and len(curve.epoch) for curve in found.values()) else {}


def _compared(
    a: Configuration, b: Configuration, mine: Sequence[dict[Any, Any]], predictions: pa.Table, **limit: float
) -> tuple[Comparison, ...]:
    at = [{key: curve.best_within(**limit) for key, curve in found.items()} for found in mine]
    if any(index is None for found in at for index in found.values()):
        return ()
    # The stored answers count here only if they are those of the very evaluations that are compared.
    stored = all(
        int(mine[side][pairing(run)].global_step[at[side][pairing(run)]]) == run.values.get("best_global_step")
        for side, configuration in enumerate((a, b))
        for run in configuration.runs
    )
    comparisons = []
    for metric in ("dev_accuracy", "dev_f1", "dev_loss"):
        values = tuple(
            {key: float(curve.metrics[metric][at[side][key]]) for key, curve in mine[side].items()} for side in (0, 1)
        )
        if all(np.isfinite(list(side.values())).all() for side in values):
            usable = predictions if stored and metric == "dev_accuracy" else None
            comparisons.append(compare(a, b, predictions=usable, metric=metric, values=(values[0], values[1])))
    return tuple(comparisons)
