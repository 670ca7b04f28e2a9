"""What a trace of jax.profiler says in a few figures: which operations took the time, and how long none ran.

It is read with `jax.profiler.ProfileData`, the same on every device, without any other package.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

WINDOW = "traced_steps"  # the annotation around what counts
DEVICE_LINE = "XLA Ops"  # of a TPU, whose operations are told by their line


class Span(NamedTuple):
    """Nanoseconds on the trace's clock."""

    name: str
    start: float
    end: float


class Operation(NamedTuple):
    """`self_ms` without what ran inside it (of a loop: its body), per step; `share` of that of all operations."""

    name: str
    self_ms: float
    share: float
    runs: int
    source: str


class Summary(NamedTuple):
    """The longest operations first; `idle_share` of the window in which no operation ran on any device."""

    operations: list[Operation]
    idle_share: float


def summarise(folder: Path, steps: int, sources: Mapping[str, str]) -> Summary:
    """Of the newest trace below `folder`, taken over `steps` steps inside the annotation `WINDOW`.

    `sources` tells the line of the model by an operation's name, as `sources_of` does.
    """
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    window, lines = read(newest)
    inside = [[s for s in line if s.start < window.end and s.end > window.start] for line in lines]
    spent: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    for line in inside:
        for name, own in self_times(line):
            spent[name] += own
            runs[name] += 1
    total = sum(spent.values()) or 1.0
    operations = [
        Operation(name, own / 1e6 / steps, own / total, runs[name], sources.get(name, ""))
        for name, own in sorted(spent.items(), key=lambda item: -item[1])
    ]
    busy = covered((s for line in inside for s in line), window)
    return Summary(operations, 1.0 - busy / (window.end - window.start))


def read(path: Path) -> tuple[Span, list[list[Span]]]:
    """The window, and the operations of every thread or stream that ran some."""
    window, lines = None, []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            spans = []
            for event in line.events:
                span = Span(event.name, event.start_ns, event.start_ns + event.duration_ns)
                if event.name == WINDOW:
                    window = span
                elif line.name == DEVICE_LINE or (operation := dict(event.stats).get("hlo_op")):
                    spans.append(span if line.name == DEVICE_LINE else span._replace(name=str(operation)))
            if spans:
                lines.append(spans)
    if window is None:
        raise ValueError(f"{path}: no annotation {WINDOW}")
    return window, lines


def self_times(line: Iterable[Span]) -> list[tuple[str, float]]:
    """Every span of one line with its length less that of the spans directly inside it."""
    done, open_spans = [], []
    for span in sorted(line, key=lambda s: (s.start, -s.end)):
        while open_spans and open_spans[-1][0].end <= span.start:
            done.append(open_spans.pop())
        if open_spans:
            open_spans[-1][1] -= min(span.end, open_spans[-1][0].end) - span.start
        open_spans.append([span, span.end - span.start])
    return [(span.name, own) for span, own in done + open_spans]


def covered(spans: Iterable[Span], window: Span) -> float:
    """Nanoseconds of the window in which at least one span runs."""
    total, reached = 0.0, window.start
    for span in sorted(spans, key=lambda s: s.start):
        end = min(span.end, window.end)
        total += max(end - max(span.start, reached), 0.0)
        reached = max(reached, end)
    return total


def sources_of(hlo: str) -> dict[str, str]:
    """Operation to the path of the module that it comes from, the first where the compiler joined several, out of a
    compiled program's text.
    """
    found = re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*metadata=\{.*?op_name=\"([^\"]*)\"", hlo, re.MULTILINE)
    return {name: re.sub(r"jit\(([^()]*)\)/", "", source).split(":")[0] for name, source in found}


def table(summary: Summary, count: int) -> str:
    """The `count` longest operations as lines of text."""
    rows = [f"{'self ms':>9}  {'share':>6}  {'runs':>5}  operation"]
    rows += [
        f"{o.self_ms:9.3f}  {o.share:6.1%}  {o.runs:5d}  {o.name}  {o.source[-90:]}".rstrip()
        for o in summary.operations[:count]
    ]
    return "\n".join(rows)
