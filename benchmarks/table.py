"""A figure, how two things are compared, and how figures are printed.

Each benchmark is a program of its own that prints its figures as JSON lines; `python -m benchmarks` runs them one
after the other and makes a table of them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rowserve.tools.cli import built

LIBRARIES = ("tensorflow", "tensorflow-cpu", "twisted", "lmdb", "blake3", "numpy", "pillow")


@dataclass(frozen=True)
class Figure:
    """One line of the table: `value` of `unit`, wanted at most (or, `at_least`, at least) `wanted`, if anything is.

    `detail` tells the two measurements that the value is made of.
    """

    what: str
    value: float
    unit: str
    wanted: float | None
    detail: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is as wanted."""
        if self.wanted is None:
            return True
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    @property
    def bound(self) -> str:
        """What is wanted, as printed."""
        if self.wanted is None:
            return "-"
        return f"{'>=' if self.at_least else '<='} {number(self.wanted)}{self.unit}"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Pair:
    """Medians of two things that were measured in turns: seconds of each, and of the ratio within a turn."""

    ours: float
    bare: float
    ratio: float

    def detail(self, scale: float, unit: str) -> str:
        """Both, in words."""
        return f"{number(self.ours * scale)} {unit} against {number(self.bare * scale)} {unit}"


def in_turns(ours: Callable[[], float], bare: Callable[[], float], turns: int) -> Pair:
    """Measure A B A B ...: each call gives its seconds. What the machine does meanwhile then hits both alike."""
    pairs = [(ours(), bare()) for _ in range(turns)]
    return median_pair(pairs)


def median_pair(pairs: Sequence[tuple[float, float]]) -> Pair:
    """Medians of (ours, bare), and of their ratio."""
    return Pair(
        statistics.median(ours for ours, _ in pairs),
        statistics.median(bare for _, bare in pairs),
        statistics.median(ours / bare for ours, bare in pairs),
    )


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def emit(figures: Callable[[bool], Iterable[Figure]]) -> None:
    """The main of a benchmark: prints its figures, a JSON object a line; `--quick` makes them rough."""
    for figure in figures("--quick" in sys.argv[1:]):
        print(json.dumps(asdict(figure)), flush=True)


def machine() -> dict[str, str]:
    """Where and with what the figures were taken."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": cpu_name(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "rowserve": built(),
        **dict(library_versions()),
    }


def cpu_name() -> str:
    """As Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def library_versions() -> Iterator[tuple[str, str]]:
    """Of those that are installed."""
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            pass


def as_markdown(figures: Sequence[Figure]) -> str:
    """The table."""
    rows = [("what", "figure", "wanted", "met", "measured"), ("---",) * 5]
    for figure in figures:
        value = f"{number(figure.value)}{figure.unit}"
        met = "-" if figure.wanted is None else "yes" if figure.met else "**no**"
        rows.append((figure.what, value, figure.bound, met, figure.detail))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
