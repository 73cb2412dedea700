"""The scores on a model card: of classes with an interval, or of a regression."""

from __future__ import annotations

import math
from statistics import NormalDist

from sst2_ray import formatting
from sst2_ray.modeling.export.facts import CardFacts


def results(card: CardFacts) -> str:
    """Return the section on the scores."""
    lines = [
        f"## Results on {card.eval_split}",
        "",
        "| metric | value | |",
        "|---|---|---|",
        *(_score_rows(card, card.accuracy) if card.accuracy is not None else _value_rows(card)),
    ]
    if card.config.selection_fraction == 0 and card.config.epochs * card.config.evaluations_per_epoch > 1:
        lines += [
            "",
            f"The weights are those of the best evaluation on these same {units(card)}, so the figures are optimistic.",
        ]
    return "\n".join(lines)


def _score_rows(card: CardFacts, accuracy: float) -> list[str]:
    correct = round(accuracy * card.num_dev_rows)
    low, high = wilson_interval(correct, card.num_dev_rows)
    f1_words = f"of the class {card.info.labels[1]}" if len(card.info.labels) == 2 else "mean over the classes"
    return [
        f"| accuracy | {formatting.percent(accuracy)} % | {correct} of {card.num_dev_rows} {units(card)}; 95 % Wilson interval "
        f"{formatting.percent(low)} to {formatting.percent(high)} |",
        f"| F1 | {formatting.percent(card.f1)} % | {f1_words} |",
        f"| loss | {card.loss:.4f} | mean cross entropy in nats |",
    ]


def _value_rows(card: CardFacts) -> list[str]:
    """Return the rows of a regression."""
    pearson, spearman = ("–" if v is None else f"{v:.4f}" for v in (card.pearson, card.spearman))
    return [
        f"| Pearson correlation | {pearson} | {card.num_dev_rows} {units(card)} |",
        f"| Spearman correlation | {spearman} | of their ranks |",
        f"| loss | {card.loss:.4f} | mean squared error |",
    ]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927). Raises ValueError where `total` is 0."""
    if total == 0:
        raise ValueError(f"{correct} correct of {total}")
    z2 = NormalDist().inv_cdf(0.975) ** 2
    share = correct / total
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return max(0.0, center - half), min(1.0, center + half)


def units(card: CardFacts) -> str:
    """Name what the model reads."""
    return "pairs" if card.info.text_columns else "sentences"
