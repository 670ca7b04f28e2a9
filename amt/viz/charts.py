"""Charts as inline SVG: drawn by matplotlib, coloured by the page's variables, so that they follow light and dark.

A chart is about as wide as a phone; on larger screens several stand side by side, and its letters grow with it.
Texts are texts of the page, in its font. Every chart says in `alt` what it shows.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINT = 1 / 72  # inches
WIDTH, HEIGHT = 380, 250  # points
ROW = 17  # points of height for each bar of a chart of lying bars
# Colours that stand for variables of the page's style sheet (assets/base.html.j2).
TEXT, SOFT, LINE, CARD = "#010101", "#020202", "#030303", "#040404"
ACCENT, LIMIT, THIRD = "#050505", "#060606", "#070707"
_VARIABLES = {TEXT: "text", SOFT: "soft", LINE: "line", CARD: "card", ACCENT: "accent", LIMIT: "limit", THIRD: "third"}
_STYLE = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11.5,
    "text.color": TEXT,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.5,
}


class Chart(NamedTuple):
    """One chart: its `<svg>` and the caption below it."""

    svg: str
    caption: str


class Curve(NamedTuple):
    """A line of a chart; `dashed` ones are what everything is compared with."""

    label: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    color: str = ACCENT
    dashed: bool = False


class Spread(NamedTuple):
    """Values with 95% intervals, one a place: `low` and `high` may be NaN where there is none."""

    label: str
    value: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    color: str = ACCENT


def curves(
    caption: str,
    alt: str,
    lines: Sequence[Curve],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> Chart:
    """Lines over a common axis."""

    def draw(axes: "Axes") -> None:
        for line in lines:
            style = "--" if line.dashed else "-"
            axes.plot(line.x, line.y, style, color=line.color, label=line.label, linewidth=1.8)
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(lines[0].x[0], lines[0].x[-1]))
        if y_range:
            axes.set_ylim(*y_range)

    return Chart(_svg(draw, alt, HEIGHT), caption)


def lying_bars(
    caption: str,
    alt: str,
    names: Sequence[str],
    bars: Spread,
    x_label: str,
    marks: Curve | None = None,
    x_range: tuple[float, float] | None = None,
) -> Chart:
    """One bar a name, from above, with its interval; `marks` are a tick a name to compare with (only `y` counts)."""
    places = np.arange(len(names))

    def draw(axes: "Axes") -> None:
        axes.barh(places, bars.value, height=0.66, color=bars.color, alpha=0.75, label=bars.label)
        axes.hlines(places, bars.low, bars.high, color=TEXT, linewidth=1.2)
        if marks:
            axes.plot(marks.y, places, "|", color=marks.color, markersize=10, markeredgewidth=2, label=marks.label)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=x_label, xlim=x_range or (0, None))

    return Chart(_svg(draw, alt, 64 + ROW * len(names)), caption)


def intervals(
    caption: str, alt: str, places: Sequence[str], rows: Sequence[Spread], x_label: str, y_label: str
) -> Chart:
    """Values with intervals over named places, one colour a row, joined by lines."""
    x = np.arange(len(places))

    def draw(axes: "Axes") -> None:
        for k, row in enumerate(rows):
            at = x + 0.12 * (k - (len(rows) - 1) / 2)
            axes.vlines(at, row.low, row.high, color=row.color, linewidth=1.2)
            axes.plot(at, row.value, "o-", color=row.color, label=row.label, markersize=4, linewidth=1.4)
        axes.set_xticks(x, places)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, None))
        axes.grid(axis="x", visible=False)

    return Chart(_svg(draw, alt, HEIGHT), caption)


def _svg(draw: Callable[["Axes"], None], alt: str, height: float) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    # The salt names what a chart refers to inside itself: two charts of a page must not share a name.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=(WIDTH * POINT, height * POINT), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, labels, loc="outside upper center", ncols=3)
        FigureCanvasSVG(figure).print_svg(
            stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _for_page(stream.getvalue(), alt)


def _for_page(svg: str, alt: str) -> str:
    """The drawing alone, in the page's colours and font, without names but those that it refers to itself."""
    root = ElementTree.fromstring(svg)
    referred = set(re.findall(r"#([mp]\w+)", svg))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}style", "}metadata")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        kept = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        if kept.get("id") not in referred:
            kept.pop("id", None)
        if "style" in kept:
            style = re.sub(r"font-family:[^;]*;?", "", kept["style"])
            kept["style"] = re.sub(r"#0\d0\d0\d", lambda found: f"var(--{_VARIABLES[found[0]]})", style)
        element.attrib = kept
    root.attrib = {"class": "chart", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")
