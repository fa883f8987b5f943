"""A batch's rows, each with its answer or its own error: a row that breaks its batch is found by halving.

Graph thread only; no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from rowserve.graphs.errors import GraphError, GraphFailed, RowBroken, one_line
from rowserve.graphs.rows import Array, Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec

Packed = Buffer | GraphError


class RunsRows(Protocol):
    """What isolation needs of a GraphSession."""

    def run(self, signature: str, rows: Rows) -> dict[str, Array]:
        """The outputs of these rows; raises GraphError."""
        ...


@dataclass(frozen=True)
class BatchResult:
    """`packed[i]` is row i's answer as RowLayout(signature.outputs) packs it, or its error. `calls` is how
    often the graph ran.
    """

    packed: list[Packed]
    calls: int


def extra_runs(count: int) -> int:
    """How many runs may be spent on finding the broken rows of a batch: eight a level of halving."""
    return 8 * (count - 1).bit_length()


def answer_batch(session: RunsRows, signature: Signature, rows: Rows) -> BatchResult:
    """Run the rows; never raises for what the graph does.

    RowBroken is halved down to the rows that cause it, within `extra_runs`; the rows still in doubt then
    fail. Any other failure is the whole batch's and is not tried again. An `alone` signature is one run and
    ONE packed entry, whatever the count.
    """
    layout = layout_of(signature.outputs)
    if signature.alone:
        return _answer_alone(session, signature, rows, layout)
    if not rows.count:
        return BatchResult([], 0)
    halving = _Halving(rows.count, lambda start, stop: _packed(session, signature, rows.slice(start, stop), layout))
    try:
        halving.search()
    except GraphError as error:
        return BatchResult([error] * rows.count, halving.calls)
    return BatchResult(halving.packed, halving.calls)


class _Halving:
    """The search over ranges of rows, left to right."""

    def __init__(self, count: int, run: Callable[[int, int], list[Buffer]]) -> None:
        self.packed: list[Packed] = []
        self.calls = 0
        self._count = count
        self._run = run

    def search(self) -> None:
        """Fill `packed`. Raises what is nobody's row's fault."""
        todo = [(0, self._count)]
        while todo:
            start, stop = todo.pop()
            if self.calls > extra_runs(self._count):
                self.packed += [self._gave_up()] * (stop - start)
                continue
            self.calls += 1
            try:
                self.packed += self._run(start, stop)
            except RowBroken as error:
                if stop - start == 1:
                    self.packed.append(error)
                else:
                    middle = (start + stop) // 2
                    todo += [(middle, stop), (start, middle)]

    def _gave_up(self) -> GraphError:
        return GraphFailed(
            f"the graph refused too many rows of this batch of {self._count}: gave up telling them apart"
            f" after {self.calls} runs"
        )


def _packed(session: RunsRows, signature: Signature, rows: Rows, layout: RowLayout) -> list[Buffer]:
    found = session.run(signature.name, rows)
    try:
        return layout.pack(found, rows.count)
    except (ValueError, TypeError, IndexError) as error:
        raise GraphFailed(f"signature {signature.name}: its answer has no row form: {one_line(error)}") from None


def _answer_alone(session: RunsRows, signature: Signature, rows: Rows, layout: RowLayout) -> BatchResult:
    try:
        found = session.run(signature.name, rows)
        return BatchResult(list(layout.pack({name: np.asarray(found[name])[None] for name in found}, 1)), 1)
    except GraphError as error:
        return BatchResult([error], 1)
    except (ValueError, TypeError, IndexError) as error:
        return BatchResult(
            [GraphFailed(f"signature {signature.name}: its answer has no row form: {one_line(error)}")], 1
        )


@lru_cache(maxsize=256)
def layout_of(specs: tuple[TensorSpec, ...]) -> RowLayout:
    """The layout of these outputs, made once."""
    return RowLayout(specs)
