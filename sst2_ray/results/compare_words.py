"""Names, cells and sentences of a comparison, as `sst2-ray compare` shows them."""

from __future__ import annotations

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES, SHARES
from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.compared import Compared
from sst2_ray.results.analysis.settings import difference_of_settings
from sst2_ray.results.analysis.sides import Side

Pair = tuple[str, str]
LETTERS = ("A", "B")
_LONGEST_HEADING = 16
"""Characters of a name up to which two of them, beside the figures, fit 80 columns as headings."""


def names_of(found: Compared) -> Pair:
    """Name the sides as the user does; A and B where both have one name, in two storages."""
    return LETTERS if found.a.name == found.b.name else found.names


def headings(found: Compared) -> Pair:
    """Name the sides in a table of the terminal: A and B, which a legend explains, where their names are long."""
    return LETTERS if max(map(len, found.names)) > _LONGEST_HEADING else names_of(found)


def cells(found: Compared, names: Pair) -> list[tuple[str, str, str, str, str, str]]:
    """Return metric, a, b, difference, interval and verdict of every metric, as text. `names`: of the sides."""
    rows = []
    for c, scores in zip(found.comparisons, found.scores, strict=True):
        as_share = c.metric in SHARES
        a, b = (formatting.NONE if s is None else formatting.percent(s) if as_share else f"{s:.3f}" for s in scores)
        estimate = c.estimate
        gap = wording.difference(estimate.value, c.metric).split(" ")[0] if estimate else formatting.NONE
        interval = wording.span(estimate, c.metric).split("interval ")[1] if estimate else formatting.NONE
        winner = names[0 if c.winner is c.a else 1]
        rows.append(
            (
                _title(c.metric, is_multiclass=found.is_multiclass),
                a,
                b,
                gap,
                interval,
                f"{winner} wins" if c.winner else str(c.verdict),
            )
        )
    return rows


def _title(metric: str, *, is_multiclass: bool) -> str:
    if metric == "f1" and is_multiclass:
        metric = "macro_f1"
    return METRIC_NAMES[metric] + (", %" if metric in SHARES else ", nats" if metric == "loss" else "")


def _decided_by(found: Compared, names: Pair) -> str:
    """Say which metric the verdict is on; empty for accuracy that both sides were chosen by, or that nothing else is known of."""
    a, b = (side.chosen_by for side in (found.a, found.b))
    name = METRIC_NAMES[found.decided_by]
    if a is not None and b is not None and a != b:
        return f"The verdict is on {name}: {names[0]} was chosen by {METRIC_NAMES[a]}, {names[1]} by {METRIC_NAMES[b]}."
    if found.decided_by == "accuracy":
        return ""
    return f"The verdict is on {name}" + (", which both were chosen by." if a and b else ".")


def legend(found: Compared, names: Pair) -> list[str]:
    """Say what each side is. `names`: of the sides in the table, perhaps letters."""
    said = []
    for label, side in zip(names, (found.a, found.b), strict=True):
        is_what = f"{side.configuration.label}{f', {side.chosen}' if side.chosen else ''}"
        said.append(
            f"{label} is {is_what}." if label == side.name else f"{label} is {_full_name(side, found)}: {is_what}."
        )
    return said


def _full_name(side: Side, found: Compared) -> str:
    return f"{side.name} in {side.origin}" if found.a.name == found.b.name else side.name


def sentences(found: Compared, table_names: Pair) -> list[str]:
    """Say the verdict, its metric and basis, what the sides were chosen from, how they differ, and where the metrics disagree.

    `table_names`: of the sides in the table above; letters are explained first.
    """
    names = names_of(found)
    verdict = wording.verdict(found.comparisons[0], names)
    said = [f"{verdict[0].upper()}{verdict[1:]}.", _decided_by(found, names)]
    at = 0 if table_names == LETTERS else len(said)
    said[at:at] = legend(found, table_names)
    said.append(difference_of_settings(found.a.configuration, found.b.configuration))
    if found.mcnemar_p is not None:
        shown = formatting.p_value(found.mcnemar_p)
        said.append(f"McNemar's test of these two runs, over the sentences alone: mid-{shown}.")
    a, b = (
        sum(d.share_a > d.share_b for d in found.differences),
        sum(d.share_b > d.share_a for d in found.differences),
    )
    if found.differences:
        said.append(f"More runs of {names[0]} are right on {formatting.count(a, 'sentence')}, of {names[1]} on {b}.")
    said += [wording.variance_split(found.comparisons[0].estimate), wording.contradiction(list(found.comparisons))]
    return [s for s in said if s]
