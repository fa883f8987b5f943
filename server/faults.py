"""What every protocol's faults have in common, and the native form. Pure functions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import encode_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rowserve.handlers.items import Encoded


class NotAllowed(Problem):
    """405, with the methods that are."""

    def __init__(self, method: str, path: str, allow: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allow))
        super().__init__(405, f"{path} takes {self.allow}, not {method}", reason="method")


def native_fault(problem: Problem) -> Encoded:
    """RFC 9457, on native routes."""
    return with_allow(problem, encode_problem(problem))


def with_allow(problem: Problem, answer: Encoded) -> Encoded:
    """A 405 names what is allowed, in any form."""
    if isinstance(problem, NotAllowed):
        return dataclasses.replace(answer, headers=[*answer.headers, ("Allow", problem.allow)])
    return answer
