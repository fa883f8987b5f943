"""Whether rows may share batches and a cache: made-up rows are run alone, in company, in other places and again.

Graph thread, at load. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rowserve.graphs.errors import GraphError
from rowserve.graphs.made_up_rows import Kind, make_up
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.graphs.tolerance import Likeness, likeness
from rowserve.graphs.trial import call

ROWS = 8
Answers = dict[str, Array]


@dataclass(frozen=True)
class Verdict:
    """What was found of one signature.

    `misfit`: why its outputs cannot be cut into rows, or "". `changing`: why a row's answer is not the row's alone, or
    "". `outputs`: as declared, but wider where an answer showed another shape. `notes`: sentences for the log.
    """

    outputs: tuple[TensorSpec, ...]
    misfit: str = ""
    changing: str = ""
    notes: tuple[str, ...] = ()


def examine(graph: LoadedGraph, signature: Signature, kinds: Sequence[Kind]) -> Verdict:
    """Test a signature that declares a leading dimension on each kind of rows that it takes."""
    verdict = Verdict(signature.outputs)
    for kind in kinds:
        company = _Company(graph, signature, kind)
        try:
            misfit = company.misfit()
            if misfit:
                return replace(verdict, misfit=misfit)
            verdict = replace(verdict, outputs=company.widened(verdict.outputs))
            changing = next(company.changing(), "")
        except GraphError as error:
            changing = f"it does not run on any number of rows: {error}"
        if changing:
            return replace(verdict, changing=changing)
        verdict = replace(verdict, notes=tuple(dict.fromkeys([*verdict.notes, *company.notes])))
    return verdict


class _Company:
    """A few rows of one kind, asked for in one company after another."""

    def __init__(self, graph: LoadedGraph, signature: Signature, kind: Kind) -> None:
        self._graph = graph
        self._signature = signature
        self._rows = make_up(signature, kind, ROWS)
        self._size = min(3, signature.batch or 3)
        self.notes: list[str] = []

    def ask(self, *places: int) -> Answers:
        """The raw answer to a batch of the rows at `places`; a fixed batch is filled up with the first of them."""
        index = list(places) + [places[0]] * ((self._signature.batch or 0) - len(places))
        arrays = {name: array[index] for name, array in self._rows.arrays.items()}
        return call(self._graph, self._signature, Rows(arrays, len(index), self._rows.static))

    def misfit(self) -> str:
        """Which output does not have as many rows as were asked for, told from two sizes (a fixed one tells less)."""
        for count in (3, 2) if self._signature.batch is None else (self._signature.batch,):
            answers = self.ask(*[place % ROWS for place in range(count)])
            for spec in self._signature.outputs:
                shape = answers[spec.name].shape
                if not shape or shape[0] != count:
                    return f"output {spec.name} does not follow the leading dimension: {list(shape)} for {count} rows"
        return ""

    def widened(self, outputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        """The outputs with free dimensions where a real answer did not keep to those declared."""
        answers = self.ask(*range(self._size))
        return tuple(widen(spec, answers[spec.name].shape[1:]) for spec in outputs)

    def changing(self) -> Iterator[str]:
        """Why a row's answer is not its own, as soon as that is known. Small differences go to `notes`."""
        size = self._size
        first = self.ask(*range(size))
        name = self._unlike(first, self.ask(*range(size)), range(size), range(size), Likeness.EQUAL)
        if name:
            yield f"output {name} of the same rows changes from one run to the next (a random op, or a counter)"
        # The same place among other rows, in a batch as large: here nothing but the company can make a difference.
        for place, company in ((0, (0, 3, 4)), (1, (5, 1, 6)), (2, (7, 3, 2)), (0, (0, 0, 0))):
            if place < size and size > 1:
                name = self._unlike(first, self.ask(*company[:size]), [place], [place], Likeness.EQUAL)
                if name:
                    yield f"output {name} of a row changes with the rows beside it"
        if size > 1:
            turned = [*range(1, size), 0]
            name = self._unlike(first, self.ask(*turned), turned, range(size), Likeness.ROUNDING)
            if name:
                yield f"output {name} of a row changes with its place in the batch"
        if self._signature.batch is None:
            for places in ((0,), (1,), (0, 1), tuple(range(ROWS))):
                shared = [place for place in places if place < size]
                name = self._unlike(first, self.ask(*places), shared, range(len(shared)), Likeness.ROUNDING)
                if name:
                    yield f"output {name} of a row changes with the number of rows beside it"

    def _unlike(
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
                    self.notes.append(
                        f"signature {self._signature.name}: output {spec.name} of a row differs in its last bits"
                        " between batches of different sizes; exact mode makes them the same"
                    )
        return ""


def widen(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """`spec`, or as much of it as is true of an answer of this shape."""
    if spec.accepts(shape):
        return spec
    if spec.shape is None or len(shape) != len(spec.shape):
        return replace(spec, shape=None)
    return replace(spec, shape=tuple(w if w == h else None for w, h in zip(spec.shape, shape, strict=True)))
