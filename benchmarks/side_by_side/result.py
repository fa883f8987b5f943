"""What a case has found: the figures of each side, and the goals they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.side_by_side.wrk import Run
from benchmarks.table import Figure, number

LIMITS = ("bare limit", "bare sum", "bare engine", "bare engine, openvino")


@dataclass
class Series:
    """The runs of one side, a turn each."""

    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """The next turn's."""
        self.runs.append(run)

    @property
    def bad(self) -> int:
        """Requests that failed."""
        return sum(run.bad for run in self.runs)


Read = Callable[[Run], float]


@dataclass
class Result:
    """One case. `values` are medians by side, ours first, in `unit`; `low`: less is better."""

    title: str
    unit: str
    values: Mapping[str, float]
    goals: Sequence[Figure] = ()
    low: bool = False

    @property
    def ours(self) -> list[str]:
        """The names under which rowserve ran."""
        return [name for name in self.values if name.startswith("rowserve")]

    @property
    def limits(self) -> list[str]:
        """The names of what has nothing around it."""
        return [name for name in self.values if name in LIMITS]

    @property
    def rivals(self) -> list[str]:
        """The names of the rivals, the best one first."""
        names = set(self.values) - {*self.ours, *self.limits}
        return sorted(names, key=lambda name: self.values[name], reverse=not self.low)


@dataclass(frozen=True)
class Growth:
    """A curve as a table: the header of each column, and a line for each point."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]


def medians(measured: Mapping[str, Series], read: Read) -> dict[str, float]:
    """Of each side."""
    return {name: statistics.median(map(read, series.runs)) for name, series in measured.items()}


def against(
    measured: Mapping[str, Series], read: Read, ours: str, other: str, wanted: float, unit: str, *, low: bool = False
) -> Figure:
    """Our figure as a multiple of another side's: the median of the ratios within the turns."""
    pairs = [(read(a), read(b)) for a, b in zip(measured[ours].runs, measured[other].runs, strict=True)]
    ratio = statistics.median(a / b if b else float("inf") for a, b in pairs)
    mine, its = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
    detail = f"{number(mine)} {unit} against {number(its)} {unit}"
    return Figure(f"{ours} / {other}", ratio, "x", wanted, detail, at_least=not low)


def compared(
    title: str,
    unit: str,
    measured: Mapping[str, Series],
    read: Read,
    best: float | None,
    limit: float | None,
    *,
    low: bool = False,
) -> Result:
    """A case with rivals and a limit, where they ran."""
    result = Result(title, unit, medians(measured, read), low=low)
    ours, *others = measured
    goals = []
    if best is not None and result.rivals:
        goals.append(against(measured, read, ours, result.rivals[0], best, unit, low=low))
    if limit is not None:
        goals += [against(measured, read, ours, name, limit, unit, low=low) for name in others if name in LIMITS]
    result.goals = goals
    return result
