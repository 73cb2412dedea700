"""Style of the figures and their output: PNG, SVG and PDF on white, and SVG for the page in light and dark."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#15171a"
GRID = "#d5d8dd"
MUTED = "#6b7079"
"""Colors of text, grid and annotations; the page replaces them with its own for light and dark."""

PALETTE = ("#2a7fd0", "#d96c0f", "#1f9e77", "#a566c9", "#c2417c", "#8a8f27", "#5c6f82", "#b5482f")
"""Distinguishable on white and on near-black, also with red-green color blindness."""

_STYLE: dict[str, object] = {
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
    """A rendered figure."""

    name: str
    """Name of its files, without a suffix."""
    caption: str
    """Sentence on what it shows; also its alternative text."""
    png: bytes
    svg: bytes
    pdf: bytes
    page_svg: str
    """SVG for the page: without a background, in the page's colors."""
    wide: bool = False
    """True if it takes the width of two figures."""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style without touching the user's matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def new_figure(*, width: float = 4.7, height: float = 3.3) -> tuple[Figure, Axes]:
    """Make a figure, its size in inches, with one set of axes. It does not use pyplot, so there is no global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def new_pair(*, width: float = 9.6, height: float = 3.3) -> tuple[Figure, Axes, Axes]:
    """Make a figure of two sets of axes side by side that share their vertical axis."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    return figure, left, right


def legend(figure: Figure, *, columns: int = 3) -> None:
    """Put the legend below the axes, where it covers no point."""
    figure.legend(loc="outside lower center", ncols=columns, fontsize=7)


def colors(names: Sequence[str]) -> dict[str, str]:
    """Assign a color to each name, in the order given."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def save(figure: Figure, name: str, caption: str, *, wide: bool = False) -> Drawn:
    """Render a figure in all formats, reproducibly to the byte."""
    ConstrainedLayoutEngine().execute(figure)  # once; an engine of the figure's own would lay it out for every format
    with matplotlib.rc_context({"svg.hashsalt": name}):
        png, svg, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Title": caption})
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
        pdf=pdf.getvalue(),
        page_svg=_for_page(transparent, name),
        wide=wide,
    )


def renamed(drawn: Drawn, name: str) -> Drawn:
    """Copy a figure under another file name."""
    page_svg = drawn.page_svg.replace(f'id="{drawn.name}-', f'id="{name}-')
    page_svg = page_svg.replace(f'"#{drawn.name}-', f'"#{name}-').replace(f"url(#{drawn.name}-", f"url(#{name}-")
    return dataclasses.replace(drawn, name=name, page_svg=page_svg)


def _for_page(svg: str, name: str) -> str:
    """Extract the <svg> element, sized by the page, with unique ids, in the page's colors."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    for color, replacement in _PAGE_COLOURS.items():
        svg = svg.replace(color, replacement)
    # The page sets the font; the size stays the figure's.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font: (bold|700) ([\d.]+)px [^;\"]*", r"font-size: \2px; font-weight: 600", svg)
    return re.sub(r"\s*\n\s*", " ", svg)


def short(name: str, longest: int = 34) -> str:
    """Shorten a name to fit into a figure; keeps the end, which says most about a path or a hub id."""
    return name if len(name) <= longest else f"…{name[-longest + 1 :]}"


def percent_axis(axes: Axes, axis: str = "y") -> None:
    """Format the ticks of an axis, which are fractions, as per cent."""

    def show(value: float, _: int) -> str:
        return f"{100 * value:.6g}"

    getattr(axes, f"{axis}axis").set_major_formatter(show)


def label_lines(axes: Axes, lines: Sequence[tuple[float, str]], *, color: str = MUTED) -> None:
    """Draw dashed horizontal lines, named to the right of the axes without overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.05
    last = -float("inf")
    for y, name in sorted(lines):
        axes.axhline(y, color=color, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        last = max(y, last + gap)
        axes.annotate(
            name,
            (1, y),
            xytext=(1.02, last),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=color,
        )
