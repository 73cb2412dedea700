"""A table for the terminal and a picture of a few labelled sentences."""

from __future__ import annotations

import textwrap
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.data.texts import shown

if TYPE_CHECKING:
    from rich.table import Table

    from sst2_ray.predict.shapes import Prediction

FORMATS = (".png", ".svg", ".pdf")

# Distinguishable with red-green color blindness; the label stands beside the bar as well.
_COLORS = ("#c0562f", "#2f6fa8", "#7a7a2e", "#6a4c93", "#2e7a6b", "#8a5a2b")
_STYLES = ("red", "blue", "yellow", "magenta", "green", "cyan")
_LINE_CHARACTERS = 88
_MAX_LINES = 4
_LINE_INCHES = 0.2
_BAR_INCHES = 0.16
_GAP_INCHES = 0.26
_FULL_BAR = 0.78
"""Share of the width of a confidence of 100 %; the label stands to its right."""


def table(predictions: Sequence[Prediction], *, title: str) -> Table:
    """Build a table of sentence, label and confidence."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title), title_justify="left")
    grid.add_column("sentence", overflow="fold", ratio=1)
    grid.add_column("label")
    grid.add_column("confidence", justify="right")
    for p in predictions:
        style = _STYLES[p.label_id % len(_STYLES)]
        grid.add_row(
            Text(shown(p.text)), Text(p.label, style=style), "–" if p.value is not None else f"{p.confidence:.1%}"
        )
    return grid


def draw(predictions: Sequence[Prediction], path: str, *, title: str) -> None:
    """Draw each sentence above a bar as long as its confidence, in the color of its label.

    The suffix of `path` decides the format. The file is replaced atomically.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    texts = [_wrapped(shown(p.text)) for p in predictions]
    rows = [_LINE_INCHES * (1 + text.count("\n")) + _BAR_INCHES + _GAP_INCHES for text in texts]
    height, width = 0.55 + sum(rows), 7.6
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0.03, 0, 0.94, 1))
    axes.set_xlim(0, 1)
    axes.set_ylim(height, 0)  # inches from the top
    axes.axis("off")
    axes.text(0, 0.16, title, fontsize=11, fontweight="bold", va="top")
    top = 0.5
    for p, text, row in zip(predictions, texts, rows, strict=True):
        color, bar = _COLORS[p.label_id % len(_COLORS)], top + row - _GAP_INCHES - _BAR_INCHES / 2
        axes.text(0, top, text, fontsize=10, va="top", linespacing=1.2)
        axes.barh(bar, _FULL_BAR, height=_BAR_INCHES, color="#ececec")
        axes.barh(bar, _FULL_BAR * p.confidence, height=_BAR_INCHES, color=color)
        axes.text(_FULL_BAR + 0.015, bar, f"{p.label} {p.confidence:.1%}", fontsize=10, va="center", color=color)
        top += row
    target = Path(path)
    partial = target.parent / f".{uuid.uuid4().hex}{target.suffix}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # characters that the font lacks become boxes
            figure.savefig(partial, dpi=160)
        partial.replace(target)
    finally:
        plt.close(figure)
        partial.unlink(missing_ok=True)


def _wrapped(text: str) -> str:
    """Wrap to at most _MAX_LINES lines and escape dollar signs, which matplotlib reads as mathematics."""
    lines = textwrap.wrap(" ".join(text.split()), _LINE_CHARACTERS, max_lines=_MAX_LINES, placeholder=" ...")
    return "\n".join(lines).replace("$", r"\$")
