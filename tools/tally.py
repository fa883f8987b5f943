"""What became of the rows of a bulk run, counted and told. Reactor thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rowserve.handlers.items import Outcome


class Tally:
    """Rows by outcome, and the time they took by `seconds`."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.seconds = 0.0

    def add(self, outcomes: Mapping[Outcome, int]) -> None:
        """Counts the rows of a chunk."""
        for outcome, number in outcomes.items():
            self.outcomes[outcome] += number

    @property
    def rows(self) -> int:
        """All rows."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.outcomes[Outcome.FAILED]

    def text(self, *, dry: bool = False) -> str:
        """For people, in one line; of a dry run, what it would do."""
        count = self.outcomes
        if dry:
            failed = f", {self.failed} would fail" if self.failed else ""
            return f"{self.rows} rows: {count[Outcome.HIT]} hits, {count[Outcome.COMPUTED]} would be computed{failed}"
        rate = self.rows / self.seconds if self.seconds > 0 else 0.0
        return (
            f"{self.rows} rows: {count[Outcome.HIT]} hits, {count[Outcome.COLLAPSED]} collapsed,"
            f" {count[Outcome.COMPUTED]} computed, {count[Outcome.BYPASSED]} bypassed, {count[Outcome.FAILED]} failed;"
            f" {self.seconds:.1f} s, {rate:,.0f} rows/s"
        )
