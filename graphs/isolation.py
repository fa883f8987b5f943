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
GAVE_UP = "the graph refused too many rows of this batch of {}: gave up telling them apart after {} runs"


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
    try:
        return BatchResult(list(_packed(session, signature, rows, layout)), 1)
    except RowBroken as error:
        if rows.count == 1:
            return BatchResult([freed(error)], 1)
    except GraphError as error:
        return BatchResult([freed(error)] * rows.count, 1)
    return _halve(rows.count, lambda start, stop: _packed(session, signature, rows.slice(start, stop), layout))


def _halve(count: int, run: Callable[[int, int], list[Buffer]]) -> BatchResult:
    """Search a batch that broke as a whole, range by range, left to right."""
    packed: list[Packed] = []
    calls, bound = 1, 1 + extra_runs(count)
    todo = [(count // 2, count), (0, count // 2)]
    while todo:
        start, stop = todo.pop()
        if calls >= bound:
            packed += [GraphFailed(GAVE_UP.format(count, calls))] * (stop - start)
            continue
        calls += 1
        try:
            packed += run(start, stop)
        except RowBroken as error:
            if stop - start == 1:
                packed.append(freed(error))
            else:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
        except GraphError as error:
            return BatchResult([freed(error)] * count, calls)
    return BatchResult(packed, calls)


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
        return BatchResult([freed(error)], 1)
    except (ValueError, TypeError, IndexError) as error:
        return BatchResult(
            [GraphFailed(f"signature {signature.name}: its answer has no row form: {one_line(error)}")], 1
        )


def freed(error: GraphError) -> GraphError:
    """The error without its traceback, whose frames hold the batch, and with it every request's body."""
    return error.with_traceback(None)


@lru_cache(maxsize=256)
def layout_of(specs: tuple[TensorSpec, ...]) -> RowLayout:
    """The layout of these outputs, made once."""
    return RowLayout(specs)
