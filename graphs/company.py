"""Made-up rows asked for in one company after another: what a row's answer hangs on besides the row.

Graph thread, at load. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence

from rowserve.graphs.made_up_rows import Kind, make_up
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature
from rowserve.graphs.tolerance import Likeness, likeness
from rowserve.graphs.trial import call

ROWS = 8
Answers = dict[str, Array]


class Company:
    """ROWS different rows of one kind. Places count on from the first row again behind the last one.

    Everything here raises GraphError where the graph does not run. `rounded` names the outputs of which rows were found
    to differ in their last bits.
    """

    def __init__(self, graph: LoadedGraph, signature: Signature, kind: Kind) -> None:
        self._graph = graph
        self._signature = signature
        self._rows = make_up(signature, kind, ROWS)
        self.rounded: list[str] = []

    def ask(self, places: Sequence[int]) -> Answers:
        """The raw answer to a batch of the rows at `places`; a fixed batch is filled up with the first of them."""
        index = [place % ROWS for place in places]
        index += index[:1] * ((self._signature.batch or 0) - len(index))
        arrays = {name: array[index] for name, array in self._rows.arrays.items()}
        return call(self._graph, self._signature, Rows(arrays, len(index), self._rows.static))

    def misfit(self, size: int) -> str:
        """Which output does not have as many rows as were asked for, or ""."""
        answers = self.ask(range(size))
        for spec in self._signature.outputs:
            shape = answers[spec.name].shape
            if not shape or shape[0] != size:
                return f"output {spec.name} does not follow the leading dimension: {list(shape)} for {size} rows"
        return ""

    def changing(self, size: int) -> str:
        """Why a row's answer is not its own in batches of `size` rows, or ""."""
        straight = range(size)
        first = self.ask(straight)
        name = self.unlike(first, self.ask(straight), straight, straight, Likeness.EQUAL)
        if name:
            return f"output {name} of the same rows changes from one run to the next (a random op, or a counter)"
        if size == 1:
            return ""
        # The same place among other rows, in a batch as large: here nothing but the company can make a difference.
        companies = [(kept, [at if at == kept else at + 3 for at in straight]) for kept in {0, size // 2, size - 1}]
        for kept, company in [*companies, (0, [0] * size)]:
            name = self.unlike(first, self.ask(company), [kept], [kept], Likeness.EQUAL)
            if name:
                return f"output {name} of a row changes with the rows beside it"
        turned = [*range(1, size), 0]
        name = self.unlike(first, self.ask(turned), turned, straight, Likeness.ROUNDING)
        return f"output {name} of a row changes with its place in the batch" if name else ""

    def rows_at(self, size: int) -> list[Answers]:
        """Each row's own answer, [1, ...] an output, run `size` rows at a time."""
        found: list[Answers] = []
        for start in range(0, ROWS, size):
            answers = self.ask(range(start, start + size))
            for at in range(min(size, ROWS - start)):
                found.append({name: array[at : at + 1].copy() for name, array in answers.items()})
        return found

    def unlike(
        self, one: Answers, other: Answers, places: Sequence[int], others: Sequence[int], least: Likeness
    ) -> str:
        """The first output in which rows at `places` and `others` are less alike than that, or ""."""
        for spec in self._signature.outputs:
            for place, there in zip(places, others, strict=True):
                a, b = one[spec.name][place : place + 1], other[spec.name][there : there + 1]
                found = likeness(a, b)
                if found < least:
                    return spec.name
                if found is Likeness.ROUNDING:
                    self.rounded.append(spec.name)
        return ""
