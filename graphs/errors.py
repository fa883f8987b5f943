"""What goes wrong with a graph, named by what happened; the message is one readable line.

Pure values, safe on any thread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What TensorFlow puts around the sentence that says what is wrong.
BEFORE = re.compile(r"^Graph execution error:\s+Detected at node.*?<stack traces unavailable>\s*", re.DOTALL)
AFTER = ("\n\t [[", "\n\nOriginal stack trace", "\n\nErrors may have originated", "\n\nFunction call stack")


class GraphError(Exception):
    """A fault of a model, of a batch or of one row. `str()` is one line that a user can read."""


class CannotLoad(GraphError):
    """The folder is no model that can be served; the message names the folder and why."""


class ForbiddenOp(CannotLoad):
    """The graph holds ops that reach outside it. `ops` are their names; nothing of the graph has run."""

    def __init__(self, message: str, ops: Sequence[str]) -> None:
        super().__init__(message)
        self.ops = tuple(ops)


class UnknownOutput(CannotLoad):
    """The settings name an output or an input that no signature has."""


class RowBroken(GraphError):
    """The graph refused these rows' values (InvalidArgument and its like): the fault is in one of them, or in
    the only one.
    """


class GraphFailed(GraphError):
    """The graph itself failed (out of memory, internal error, an unset variable): no row of the batch is to
    blame.
    """


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The part of an error that a reader wants: no node lists, no traceback, no newline."""
    text = str(getattr(error, "message", None) or error)
    text = BEFORE.sub("", text)
    for mark in AFTER:
        text = text.split(mark, 1)[0]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
