"""Metrics of one run's answers, and what each sentence contributes to them.

Scores of classes are functions of the confusion matrix; the area under the ROC curve is one of the ranks of a score.
"""

from __future__ import annotations

import numpy as np

from sst2_ray.statistics.scores import Array

OF_CONFUSION = ("accuracy", "f1", "precision", "recall", "macro_f1", "weighted_f1", "mcc")


def confusion_scores(confusion: Array) -> dict[str, float]:
    """Compute the scores `OF_CONFUSION`; 0 where undefined.

    F1, precision and recall are those of class 1 of two, else means over the classes that occur among labels or answers.

    Args:
        confusion: Rows of each label (first index) with each answer (second), [classes, classes]; at least one row.
    """
    hits, actual, answered = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precisions, recalls = hits / np.maximum(1, answered), hits / np.maximum(1, actual)
    f1s = np.where(hits > 0, 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-300), 0.0)
    occurs = actual + answered > 0
    two, num = len(hits) == 2, int(actual.sum())
    macro_f1 = float(f1s[occurs].mean())
    return {
        "accuracy": int(hits.sum()) / num,
        "f1": float(f1s[1]) if two else macro_f1,
        "precision": float(precisions[1] if two else precisions[occurs].mean()),
        "recall": float(recalls[1] if two else recalls[occurs].mean()),
        "macro_f1": macro_f1,
        "weighted_f1": float(f1s @ actual) / num,
        "mcc": _matthews(hits, actual, answered),
    }


def _matthews(hits: Array, actual: Array, answered: Array) -> float:
    """Compute R_K from the counts of each class.

    Source: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004); for two
    classes it is Matthews' coefficient.
    """
    num, right = int(actual.sum()), int(hits.sum())
    # Python integers: the products of millions of rows exceed 64 bits.
    p, t = [int(n) for n in answered], [int(n) for n in actual]
    spread = (num * num - sum(n * n for n in p)) * (num * num - sum(n * n for n in t))
    covariance = right * num - sum(a * b for a, b in zip(p, t, strict=True))
    return covariance / float(spread) ** 0.5 if spread else 0.0


def average_ranks(values: Array) -> Array:
    """Compute the rank of each value, from 1 on, float [rows]. Equal values share the mean of theirs; one NaN makes all NaN.

    The same numbers as scipy.stats.rankdata's, whose package takes half a second to import: every evaluation needs them.
    """
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.full(len(values), np.nan) if np.isnan(values).any() else ranks[number]


def auroc(label: Array, score: Array) -> float | None:
    """Compute the area under the ROC curve of `score` [rows] for `label` 1 against 0 [rows]; None without both labels.

    The share of pairs of a positive and a negative row in which the positive one scores higher, ties counted half.
    """
    positive = np.asarray(label) == 1
    num, num_positive = len(positive), int(positive.sum())
    if num_positive in (0, num) or not np.isfinite(score).all():
        return None
    ranks = average_ranks(score)
    pairs = num_positive * (num - num_positive)
    return float(ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / pairs


def row_values(metric: str, label: Array, predicted: Array, score: Array | None = None) -> Array | None:
    """Compute what each row contributes to a metric of one run, float [rows]; their mean is the metric.

    For accuracy right (1) and wrong (0), else jackknife pseudo-values N metric - (N - 1) metric without the row, shifted to
    that mean. None for a metric that these answers do not have.

    Args:
        metric: One of `OF_CONFUSION`, or auroc.
        label: Number of the class, [rows].
        predicted: Number of the class, [rows].
        score: Of class 1 of two, [rows]; auroc alone needs it.

    Source: Dorfman, Berbaum and Metz, Investigative Radiology 27 (1992) 723-731 (pseudo-values).
    """
    if metric == "accuracy":
        return np.asarray(label == predicted, dtype=float)
    if metric == "auroc":
        return None if score is None else _auroc_values(np.asarray(label), score)
    classes = max(int(label.max()), int(predicted.max()), 1) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (label, predicted), 1)

    def without(cell: Array) -> float:
        confusion[tuple(cell)] -= 1
        found = confusion_scores(confusion)[metric]
        confusion[tuple(cell)] += 1
        return found

    # Rows of equal label and answer have equal pseudo-values.
    cells, kind_of = np.unique(np.stack([label, predicted]), axis=1, return_inverse=True)
    left = np.array([without(cell) for cell in cells.T])[kind_of.reshape(-1)]
    return _pseudo_values(confusion_scores(confusion)[metric], left)


def correlation(metric: str, label: Array, value: Array) -> float:
    """Compute Pearson's or Spearman's correlation of values and labels, [rows] each; 0 for constant ones."""
    x, y = (np.asarray(a, dtype=np.float64) for a in (label, value))
    if metric == "spearman":
        x, y = average_ranks(x), average_ranks(y)
    x, y = x - x.mean(), y - y.mean()
    spread = float((x @ x) * (y @ y)) ** 0.5
    return float(x @ y) / spread if spread > 0 else 0.0


def value_contributions(metric: str, label: Array, value: Array) -> Array:
    """Compute what each row contributes to a metric of a regression, as `row_values` does for classes.

    loss: squared differences. pearson, spearman: jackknife pseudo-values; those of Spearman's correlation keep the ranks among
    all rows, which leaving a row out shifts by at most one.
    """
    x, y = (np.asarray(a, dtype=np.float64) for a in (label, value))
    if metric == "loss":
        return np.asarray((x - y) ** 2)
    if metric == "spearman":
        x, y = average_ranks(x), average_ranks(y)
    x, y = x - x.mean(), y - y.mean()
    left = len(x) - 1
    # Sums of squares and products about the means without the row.
    shrink = len(x) / left
    xx, yy, xy = (float(a @ b) - shrink * a * b for a, b in ((x, x), (y, y), (x, y)))
    spread = np.sqrt(np.maximum(xx * yy, 0.0))
    without = np.divide(xy, spread, out=np.zeros_like(xy), where=spread > 0)
    return _pseudo_values(correlation(metric, label, value), without)


def _auroc_values(label: Array, score: Array) -> Array | None:
    whole = auroc(label, score)
    positive = label == 1
    num, num_positive = len(label), int(positive.sum())
    if whole is None or min(num_positive, num - num_positive) < 2:
        return None
    ranks = average_ranks(score)
    left = np.empty(num)
    for side, others in ((positive, num - num_positive), (~positive, num_positive)):
        # Share of the other class that scores lower than the row; without the row the mean of the others' shares is left.
        below = (ranks[side] - average_ranks(score[side])) / others
        mine = int(side.sum())
        found = (below.sum() - below) / (mine - 1)
        left[side] = found if side is positive else 1 - found
    return _pseudo_values(whole, left)


def _pseudo_values(whole: float, without: Array) -> Array:
    num = len(without)
    values = num * whole - (num - 1) * without
    return np.asarray(values - values.mean() + whole)


def least_error(metric: str, label: Array, predicted: Array) -> float:
    """Compute what one sentence that is answered otherwise changes in a metric, at most: the least error of a score.

    Args:
        metric: One of `OF_CONFUSION`; of other metrics the share of one sentence stands for it.
        label: Numbers of the classes, [rows].
        predicted: One run's answers, [rows].
    """
    if metric not in OF_CONFUSION or min(label.min(), predicted.min()) < 0:
        return 1 / len(label)
    classes = max(int(label.max()), int(predicted.max()), 1) + 1
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (label, predicted), 1)
    whole, changes = confusion_scores(confusion)[metric], [1 / len(label)]
    for actual, answered in zip(*np.nonzero(confusion), strict=True):
        for other in {actual, (answered + 1) % classes} - {answered}:
            confusion[actual, [answered, other]] += (-1, 1)
            changes.append(abs(confusion_scores(confusion)[metric] - whole))
            confusion[actual, [answered, other]] += (1, -1)
    return max(changes)


def standard_error(values: Array) -> float:
    """Compute the standard error of the mean of what rows contribute (`row_values`)."""
    return float(values.std(ddof=1)) / len(values) ** 0.5
