"""What a report of an evaluation consists of: sections of words, tables, charts and frames, and how numbers are put."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amt.viz.charts import Chart
from amt.viz.pages import Picture, write_page

UNKNOWN = "–"  # in a table, where nothing was measured


@dataclass(frozen=True)
class Table:
    """Rows of texts under `head`; the first column names the rows."""

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Frames:
    """Pictures side by side under one heading."""

    heading: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """One part of the page: words, then charts, then tables, then frames. `folded` hides all but the words."""

    id: str
    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    frames: tuple[Frames, ...] = ()
    folded: str = ""


@dataclass(frozen=True)
class EvaluationPage:
    """The page; `lead` says below the title what was evaluated on what."""

    title: str
    lead: str
    warnings: Sequence[str]
    sections: Sequence[Section]
    configuration: str = ""

    def write(self, path: str | Path) -> None:
        write_page(path, "evaluation.html.j2", report=self)


def number(value: float | None, digits: int = 1) -> str:
    """`value` with so many decimals, `UNKNOWN` where it is not a number."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in percent."""
    text = number(None if share is None else 100 * share, digits)
    return text if text == UNKNOWN else f"{text}%"


def between(value: float | None, low: float | None, high: float | None, digits: int = 1) -> str:
    """A value with its interval, `12.3 [11.9, 12.8]`; without one the value alone."""
    text, ends = number(value, digits), (number(low, digits), number(high, digits))
    return text if UNKNOWN in ends else f"{text} [{ends[0]}, {ends[1]}]"
