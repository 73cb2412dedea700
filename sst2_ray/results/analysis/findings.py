"""Findings on one set of evaluation data: the best configurations, how they compare, what may be the best.

Everything that the report shows in words and tables is computed here; figures and HTML only lay it out.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sst2_ray.records import Status
from sst2_ray.results.analysis import evidence
from sst2_ray.results.analysis.comparison import (
    MARGIN,
    Bests,
    Comparison,
    compare,
    margin_of,
    possible_bests,
    with_holm,
)
from sst2_ray.results.analysis.curves import Curves, load_curves
from sst2_ray.results.analysis.evidence import Evidence
from sst2_ray.results.analysis.head_to_head import HeadToHead, head_to_head, opponents
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """The trials that were evaluated on the same sentences."""

    eval_split: str | None
    data_fingerprint: str | None
    trials: pa.Table
    """Latest attempts of all its trials, whatever their status."""
    groups: tuple[RankedGroup, ...]
    """Rankings, one per metric, the one with the most configurations first; empty when no trial succeeded."""
    curves: Curves
    curve_split: str
    """dev, or selection when the runs were evaluated on a held-out part of train during training."""
    selected_on: Evidence
    """Answers to the sentences that the ranking is by."""
    on_dev: Evidence
    """Answers to dev; the same as `selected_on` when the ranking is by dev."""
    texts: dict[int, str]
    """Dev sentences by row id."""
    best_per_model: tuple[Configuration, ...]
    against_best: tuple[Comparison | None, ...]
    """Each of `best_per_model` against the first; None for the first itself and for those ranked by another metric."""
    bests: Bests | None
    """The configurations that may be the best; None for fewer than two."""
    head_to_head: HeadToHead | None
    edges: tuple[tuple[str, Edge], ...]
    """Model and axis whose best value is the last one tried."""

    @property
    def title(self) -> str:
        """Name of the evaluation data."""
        return self.eval_split or "evaluation data not named"

    @property
    def is_sst2(self) -> bool:
        """Tell whether the evaluation data are SST-2's dev split."""
        return self.eval_split == SST2_DEV

    @property
    def curves_on(self) -> str:
        """Sentences of the curves' evaluations, in words."""
        return "dev" if self.curve_split == "dev" else "held-out part of train"

    @property
    def main(self) -> RankedGroup | None:
        """The ranking with the most configurations."""
        return self.groups[0] if self.groups else None

    @property
    def comparisons(self) -> list[Comparison]:
        """Comparisons of two models, each at its best: ModernBERT with SBERT first, then the best model with the others."""
        found = [self.head_to_head.overall] if self.head_to_head else []
        pairs = [{c.a.configuration_id, c.b.configuration_id} for c in found]
        others = [c for c in self.against_best if c is not None]
        return found + [c for c in others if {c.a.configuration_id, c.b.configuration_id} not in pairs]

    @property
    def configurations(self) -> list[Configuration]:
        """The configurations of all rankings."""
        return [c for group in self.groups for c in group.configurations]

    @property
    def axes(self) -> list[str]:
        """The settings that were searched."""
        return searched_axes(self.configurations) if self.groups else []

    @property
    def num_tried(self) -> tuple[int, int]:
        """Number of configurations and of runs that were tried, whatever their status."""
        ids = zip(*(self.trials.column(n).to_pylist() for n in ("configuration_id", "trial_id")), strict=True)
        return len({configuration or trial for configuration, trial in ids}), self.trials.num_rows

    @functools.cached_property
    def bias_of_best(self) -> float | None:
        """Estimated excess of the best score for having been chosen by it; None when it cannot be computed."""
        if self.main is None or len(self.main.configurations) < 2:
            return None
        search = self.selected_on.search(self.main.configurations)
        return None if search is None else search.bias_of_best()


def studies(table: ResultsTable, trials: pa.Table, *, margin: float = MARGIN) -> list[Study]:
    """Make one study of each set of evaluation sentences, those with the most succeeded trials first.

    Args:
        trials: the latest attempts with all columns.
        margin: difference in accuracy, 0-1, below which two configurations count as equal.
    """
    splits: dict[tuple[str | None, str | None], int] = {}
    columns = (trials.column(name).to_pylist() for name in ("eval_split", "data_fingerprint", "status"))
    for split, fingerprint, status in zip(*columns, strict=True):
        splits[split, fingerprint] = splits.get((split, fingerprint), 0) + (status == Status.SUCCEEDED)
    found = []
    for split, fingerprint in sorted(splits, key=lambda key: (-splits[key], str(key))):
        mine = trials.filter(_equals("eval_split", split) & _equals("data_fingerprint", fingerprint))
        found.append(_study(table, mine, split, fingerprint, margin))
    return found


def _equals(column: str, value: str | None) -> pc.Expression:
    return pc.field(column).is_null() if value is None else pc.field(column) == value


def _study(table: ResultsTable, trials: pa.Table, split: str | None, fingerprint: str | None, margin: float) -> Study:
    groups = rank(trials)
    ranked = groups[0].configurations if groups else ()
    curves, curve_split = _curves(table, trials, groups)
    chosen_by = groups[0].chosen_by if groups else "accuracy"
    on_dev = evidence.load(table, ranked, "dev", chosen_by)
    by_selection = bool(groups) and groups[0].on_selection
    selected_on = evidence.load(table, ranked, "selection", chosen_by) if by_selection else on_dev
    best = _best_per_model(groups)
    overall, against = _compared(groups, best, on_dev, selected_on, margin) if groups else (None, ())
    return Study(
        eval_split=split,
        data_fingerprint=fingerprint,
        trials=trials,
        groups=tuple(groups),
        curves=curves,
        curve_split=curve_split,
        selected_on=selected_on,
        on_dev=on_dev,
        texts=_texts(table, best),
        best_per_model=tuple(best),
        against_best=against,
        bests=possible_bests(ranked, selected_on, margin=margin),
        head_to_head=head_to_head(
            groups[0], overall, curves, curve_split, on_dev if curve_split == "dev" else selected_on
        ) if overall else None,
        edges=_edges(trials, groups),
    )  # fmt: skip


def _compared(
    groups: Sequence[RankedGroup],
    best: Sequence[Configuration],
    on_dev: Evidence,
    selected_on: Evidence,
    margin: float,
) -> tuple[Comparison | None, tuple[Comparison | None, ...]]:
    """Compare ModernBERT with SBERT, and each model's best with the best of all, corrected for their number."""
    main, duel = groups[0], opponents(groups[0])
    others = [c for c in best[1:] if c in main.configurations]
    pairs = [*([duel] if duel else []), *((best[0], other) for other in others)]
    compared = with_holm([_final(main, *pair, on_dev, selected_on, margin) for pair in pairs])
    by_other = {c.b.configuration_id: c for c in compared[len(pairs) - len(others) :]}
    return compared[0] if duel else None, tuple(by_other.get(c.configuration_id) for c in best)


def _final(
    main: RankedGroup, a: Configuration, b: Configuration, on_dev: Evidence, selected_on: Evidence, margin: float
) -> Comparison:
    """Compare the chosen of two models on dev, corrected for the search when they were chosen by dev as well."""
    metric, margin = main.chosen_by, margin_of(main.chosen_by, margin)
    if main.is_reported_on_dev(a, b):
        return compare(a, b, on_dev, metric=metric, margin=margin)
    return compare(a, b, selected_on, metric=metric, margin=margin, searched=main.searched_for(a, b))


def _curves(table: ResultsTable, trials: pa.Table, groups: Sequence[RankedGroup]) -> tuple[Curves, str]:
    """Read the curves of the best configurations first, then of the other trials, up to `MAX_CURVES`."""
    wanted = [(run.experiment, run.trial_id) for c in _best_per_model(groups) for run in c.runs]
    others = zip(trials.column("experiment").to_pylist(), trials.column("trial_id").to_pylist(), strict=True)
    wanted = list(dict.fromkeys([*wanted, *others]))[:MAX_CURVES]
    chosen_elsewhere = bool(groups) and groups[0].on_selection
    for split in ("selection", "dev") if chosen_elsewhere else ("dev", "selection"):
        curves = load_curves(table, wanted, split=split)
        if curves:
            return curves, split
    return {}, "dev"


def _texts(table: ResultsTable, best: Sequence[Configuration]) -> dict[int, str]:
    runs = [run for configuration in best for run in configuration.runs]
    rows = table.read(
        "predictions",
        columns=["row_id", "text"],
        experiment={run.experiment for run in runs},
        trial_ids={run.trial_id for run in runs},
        attempts="latest",
        filter=(pc.field("split") == "dev") & pc.field("text").is_valid(),
    )
    return dict(zip(rows.column("row_id").to_pylist(), rows.column("text").to_pylist(), strict=True))


def _best_per_model(groups: Sequence[RankedGroup]) -> list[Configuration]:
    """Return each model's best configuration in the first ranking that has the model; the best of the first comes first."""
    best: dict[str, Configuration] = {}
    for group in groups:
        for configuration in group.best_per_model():
            best.setdefault(model_label(configuration.setting), configuration)
    return list(best.values())


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
