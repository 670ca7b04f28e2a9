"""What a compiled program sends between devices, read off its HLO text."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = re.compile(r"(?:pred|[a-z]+?(\d+))(?:e\d\w*)?\[([\d,]*)\]")  # f32[2,3], bf16[], f8e4m3fn[7], pred[5]
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$")
CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|called_computations)=\{?([^,}]+(?:, %[^,}]+)*)"
)
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[(\d+),(\d+)\]<=)")
MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")  # mesh['axis_0'=4,'axis_1'=2] {'axis_0'}
CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of one kind in one step, for one device: how many, the bytes of their operands (of an all-gather: of its result),
    and the bytes that the device sends where each runs around a ring of its group.

    `unknown_loops` says that some are in loops of unknown length, whose bodies were counted once.
    """

    count: int = 0
    bytes: int = 0
    sent: int = 0
    unknown_loops: bool = False

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.count + other.count,
            self.bytes + other.bytes,
            self.sent + other.sent,
            self.unknown_loops or other.unknown_loops,
        )

    def times(self, n: int | None) -> "Traffic":
        """In a loop of `n` turns; None: it is not known how many."""
        if n is None:
            return dataclasses.replace(self, unknown_loops=self.count > 0)
        return dataclasses.replace(self, count=n * self.count, bytes=n * self.bytes, sent=n * self.sent)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes


def traffic(hlo: str, num_devices: int) -> dict[str, Traffic]:
    """By kind, of the optimised HLO of a program for `num_devices`: `jax.stages.Compiled.as_text()`.

    The body of a loop counts as often as the compiler knows it to run; of a conditional's branches all count. In
    fusions what goes over one channel counts once: a TPU's compiler writes a collective into all that run meanwhile.
    """
    computations, entry = _parse(hlo)
    seen: dict[str, dict[str, Traffic]] = {}
    fused = {inner for xs in computations.values() for x in xs if x.opcode == "fusion" for inner in _called(x.rest)}
    channels: set[str] = set()

    def of(name: str) -> dict[str, Traffic]:
        if name not in seen:
            total = defaultdict(Traffic)
            shapes = {x.name: x.shape for x in computations[name]}
            for x in computations[name]:
                if kind := next((k for k in KINDS if x.opcode in (k, f"{k}-start")), None):
                    if name in fused and (channel := CHANNEL.search(x.rest)):
                        if channel[1] in channels:
                            continue
                        channels.add(channel[1])
                    total[kind] += _cost(kind, x, shapes, num_devices)
                    continue  # what an all-reduce applies sends nothing
                known = TRIPS.search(x.rest)
                turns = (int(known[1]) if known else None) if x.opcode == "while" else 1
                for inner in _called(x.rest):
                    for kind, cost in of(inner).items():
                        total[kind] += cost.times(turns)
            seen[name] = dict(total)
        return seen[name]

    return of(entry)


def _parse(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations, entry, current = {}, "", []
    for line in hlo.splitlines():
        if header := COMPUTATION.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif found := INSTRUCTION.match(line):
            current.append(_Instruction(*found.groups()))
    return computations, entry


def _called(rest: str) -> Iterator[str]:
    for _, names in CALLED.findall(rest):
        yield from (name.strip().removeprefix("%") for name in names.split(","))


def _cost(kind: str, x: _Instruction, shapes: dict[str, str], num_devices: int) -> Traffic:
    operands = _operands(x.rest)
    size = sum(num_bytes(shapes[name]) for name in operands)
    if kind == "collective-permute":
        return Traffic(1, size, size)
    n = _group_size(x.rest, num_devices)
    if n == 1:
        return Traffic()
    size *= n if kind == "all-gather" else 1
    turns = 2 if kind == "all-reduce" else 1
    return Traffic(1, size, turns * size * (n - 1) // n)


def _group_size(rest: str, num_devices: int) -> int:
    """How many devices exchange with each other; all where it is not said."""
    if mesh := MESH_GROUPS.search(rest):
        sizes = dict(axis.split("=") for axis in mesh[1].split(","))
        axes = [axis.strip() for axis in mesh[2].split(",")]  # or a part of one, as 'axis_0':(2)4
        return math.prod(int(axis.split(")")[1] if ":" in axis else sizes[axis]) for axis in axes)
    group = GROUPS.search(rest)
    if group is None:
        return num_devices
    return int(group[3]) if group[3] else group[1].count(",") + 1


def _operands(rest: str) -> list[str]:
    depth = 1
    for end, letter in enumerate(rest):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0:
            return re.findall(r"%([\w.-]+)", rest[:end])
    raise ValueError(f"HLO: no closing bracket in {rest!r}")


def num_bytes(shape: str) -> int:
    """Of a shape or tuple of shapes as HLO writes them."""
    total = 0
    for bits, axes in BITS.findall(shape):
        count = math.prod(int(n) for n in axes.split(",") if n)
        total += count * max(int(bits or 8), 8) // 8
    return total
