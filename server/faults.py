"""Faults as problems, and the native form in which they are written. Pure functions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rowserve.graphs.errors import CannotLoad, GraphError, RowBroken
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import encode_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rowserve.handlers.items import Encoded


CODING = "coding"


class NotAllowed(Problem):
    """405, with the methods that are."""

    def __init__(self, method: str, path: str, allow: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allow))
        super().__init__(405, f"{path} takes {self.allow}, not {method}", reason="method")


def native_fault(problem: Problem) -> Encoded:
    """RFC 9457, on native routes."""
    return with_hints(problem, encode_problem(problem))


def hinted(fault: Callable[[Problem], Encoded]) -> Callable[[Problem], Encoded]:
    """The form, with hints."""
    return lambda problem: with_hints(problem, fault(problem))


def with_hints(problem: Problem, answer: Encoded, allowed: Iterable[str] = ()) -> Encoded:
    """In any form, a 405 names the methods that are allowed, and a refused coding those that are taken (RFC 9110,
    sections 15.5.6 and 12.5.3)."""
    if isinstance(problem, NotAllowed):
        hint = ("Allow", problem.allow)
    elif problem.status == 405:
        hint = ("Allow", ", ".join(sorted(allowed)))
    elif problem.reason == CODING:
        hint = ("Accept-Encoding", "gzip, deflate")
    else:
        return answer
    return dataclasses.replace(answer, headers=[*answer.headers, hint])


def not_cached(rows: int) -> Problem:
    """The answer to only-if-cached when rows are missing (RFC 9111, section 5.2.1.7)."""
    what = "a row is" if rows == 1 else f"{rows} rows are"
    return Problem(504, f"{what} not in the cache", reason="not_cached")


def problem_of(error: BaseException) -> Problem:
    """A row's fault in the words of its answer; what the client cannot help keeps its details for the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RowBroken):
        return Problem(422, f"the model refused this row: {error}", reason="refused_by_model")
    if isinstance(error, CannotLoad):
        return Problem(503, str(error), reason="broken")
    if isinstance(error, GraphError):
        return Problem(500, f"the model failed: {error}", reason="graph")
    return Problem(500, "the server failed on this row; its log says why", reason="internal")
