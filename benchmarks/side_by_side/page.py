"""Writes the figures into docs/performance.md, between its marks, and the picture beside it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.__main__ import busy_seconds
from benchmarks.side_by_side.chart import bars_svg
from benchmarks.side_by_side.result import Growth, Result
from benchmarks.table import Figure, machine, number

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
LOOK_SECONDS = 2.0


def busy_cores() -> float:
    """How many cores are busy while nothing is measured."""
    began = busy_seconds()
    time.sleep(LOOK_SECONDS)
    return (busy_seconds() - began) / LOOK_SECONDS


@dataclass
class Page:
    """All that was found in one run. `command` is how it was started."""

    command: str
    busy: float = field(default_factory=busy_cores)
    found: list[Result | Growth] = field(default_factory=list)
    checks: int = 0
    wrong: Sequence[str] = ()
    notes: Sequence[str] = ()
    began: float = field(default_factory=time.monotonic)

    @property
    def results(self) -> list[Result]:
        """The cases with goals."""
        return [each for each in self.found if isinstance(each, Result)]

    @property
    def growth(self) -> list[Growth]:
        """The curves."""
        return [each for each in self.found if isinstance(each, Growth)]

    def head(self) -> str:
        """Where, when and how."""
        told = {
            **machine(),
            "minutes": f"{(time.monotonic() - self.began) / 60:.0f}",
            "busy before": f"{self.busy:.2f} of {len(os.sched_getaffinity(0))} cores",
        }
        return f"`{self.command}`\n\n" + ", ".join(f"{name}: {value}" for name, value in told.items()) + "."

    def checked(self) -> str:
        """Whether the answers were right."""
        lines = [f"{self.checks:,} rows of the timed runs' answers were compared with the bare model's: all equal."]
        if self.wrong:
            lines = ["**Not all was well:**", *(f"* {fault}" for fault in dict.fromkeys(self.wrong))]
        return "\n".join([*lines, *(f"* {note}" for note in self.notes)])

    def rivals_text(self) -> str:
        """The table of all cases, and of what was wanted."""
        goals = [goals_table(self.results)] if any(result.goals for result in self.results) else []
        return "\n\n".join([self.head(), values_table(self.results), *goals, self.checked()])

    def growth_text(self) -> str:
        """The curves."""
        tables = [f"### {each.title}\n\n{markdown(each.columns, each.lines)}" for each in self.growth]
        return "\n\n".join([self.head(), *tables])

    def text(self) -> str:
        """All of it."""
        return "\n\n".join(
            [*([self.rivals_text()] if self.results else []), *([self.growth_text()] if self.growth else [])]
        )

    def write(self, rivals: bool, growth: bool) -> None:
        """Into the page: these parts."""
        parts = {"rivals": self.rivals_text() if rivals else "", "growth": self.growth_text() if growth else ""}
        page = DOCS / "performance.md"

        def replaced(found: re.Match[str]) -> str:
            new = parts.get(found[2])
            return f"{found[1]}\n{new}\n\n{found[3]}" if new else found[0]

        page.write_text(MARKED.sub(replaced, page.read_text(encoding="utf-8")), encoding="utf-8")
        if rivals:
            drawn = [each for each in self.results if each.rivals] or [each for each in self.results if each.limits]
            about = machine()
            told = f"{about['cpu']}, {about['cores']} cores, {about['date'][:10]}"
            (DOCS / "performance.svg").write_text(bars_svg(drawn, told), encoding="utf-8")


def values_table(results: Sequence[Result]) -> str:
    """What each side did: a line a case."""
    lines = []
    for result in results:
        lines.append(
            (result.title, result.unit, *(cell(result, names) for names in (result.ours, result.rivals, result.limits)))
        )
    return markdown(("case", "", "rowserve", "rivals, the best first", "with nothing around it"), lines)


def cell(result: Result, names: Sequence[str]) -> str:
    """Some sides' figures; ours alone needs no name."""
    told = [f"{name} {number(result.values[name])}" for name in names]
    return "**" + number(result.values[names[0]]) + "**" if list(names) == ["rowserve"] else "; ".join(told)


def goals_table(results: Sequence[Result]) -> str:
    """What was wanted, and whether it was met."""
    lines = [(result.title, goal.what, *verdict(goal)) for result in results for goal in result.goals]
    return markdown(("case", "compared", "figure", "wanted", "met", "measured"), lines)


def verdict(goal: Figure) -> tuple[str, ...]:
    """A goal's last cells."""
    return f"{number(goal.value)}{goal.unit}", goal.bound, "yes" if goal.met else "**no**", goal.detail


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines))
