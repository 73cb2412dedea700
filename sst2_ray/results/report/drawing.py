"""How every figure looks, and how it becomes files: PNG and SVG on white, and SVG for the page in light and dark."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#15171a"
GRID = "#d5d8dd"
MUTED = "#6b7079"
"""Colours of text, grid and annotations; the page replaces them with its own, which differ in the dark."""

PALETTE = ("#2a7fd0", "#d96c0f", "#1f9e77", "#a566c9", "#c2417c", "#8a8f27", "#5c6f82", "#b5482f")
"""Told apart on white and on near-black, and by people who do not see red and green apart."""

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "figure.facecolor": "white",
    "axes.facecolor": "none",
}
_PNG_DPI = 160
_PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)", MUTED: "var(--muted)"}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure, ready to be written."""

    name: str
    """Of its files, without a suffix."""
    caption: str
    """What it shows, in a sentence; also its alternative text."""
    png: bytes
    svg: bytes
    page_svg: str
    """For the page: without a background, in the page's colours."""
    wide: bool = False
    """It needs the width of two."""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style; the user's own matplotlib settings are left as they are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def new_figure(*, width: float = 4.7, height: float = 3.3) -> tuple[Figure, Axes]:
    """A figure of inches with one set of axes. No pyplot: nothing global is touched."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour a name, in the order given."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def save(figure: Figure, name: str, caption: str, *, wide: bool = False) -> Drawn:
    """Render a figure in all its forms. The bytes are the same each time."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out now, and need not be once more for each form
    with matplotlib.rc_context({"svg.hashsalt": name}):
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
        metadata = {"Date": None, "Creator": None, "Title": caption}
        figure.savefig(svg, format="svg", transparent=True, metadata=metadata)
    transparent = svg.getvalue().decode()
    on_white = transparent.replace(
        '<g id="figure_1">', '<rect width="100%" height="100%" fill="white"/><g id="figure_1">', 1
    )
    return Drawn(
        name=name,
        caption=caption,
        png=png.getvalue(),
        svg=on_white.encode(),
        page_svg=_for_page(transparent, name),
        wide=wide,
    )


def renamed(drawn: Drawn, name: str) -> Drawn:
    """The same figure under another file name."""
    page_svg = drawn.page_svg.replace(f'id="{drawn.name}-', f'id="{name}-')
    page_svg = page_svg.replace(f'"#{drawn.name}-', f'"#{name}-').replace(f"url(#{drawn.name}-", f"url(#{name}-")
    return dataclasses.replace(drawn, name=name, page_svg=page_svg)


def _for_page(svg: str, name: str) -> str:
    """The <svg> element alone, sized by the page, with ids of its own, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    for colour, replacement in _PAGE_COLOURS.items():
        svg = svg.replace(colour, replacement)
    # The page says how text looks; the size stays the figure's.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font: (bold|700) ([\d.]+)px [^;\"]*", r"font-size: \2px; font-weight: 600", svg)
    return re.sub(r"\s*\n\s*", " ", svg)


def short(name: str, longest: int = 34) -> str:
    """A name that fits into a figure: the end of a long one, which tells most about a path or a hub id."""
    return name if len(name) <= longest else f"…{name[-longest + 1 :]}"


def percent_axis(axes: Axes, axis: str = "y") -> None:
    """Fractions as per cent, with as many digits as the ticks need."""

    def show(value: float, _: int) -> str:
        return f"{100 * value:.6g}"

    getattr(axes, f"{axis}axis").set_major_formatter(show)


def label_lines(axes: Axes, lines: Sequence[tuple[float, str]], *, colour: str = MUTED) -> None:
    """Dashed horizontal lines with their names to the right of the axes, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.05
    last = -float("inf")
    for y, name in sorted(lines):
        axes.axhline(y, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        last = max(y, last + gap)
        axes.annotate(
            name,
            (1, y),
            xytext=(1.02, last),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=colour,
        )
