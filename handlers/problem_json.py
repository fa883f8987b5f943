"""Problems as native routes write them: application/problem+json (RFC 9457).

Pure values, safe on any thread.
"""

from __future__ import annotations

import math

import orjson

from rowserve.handlers.items import Encoded
from rowserve.handlers.problem import Problem

CONTENT_TYPE = "application/problem+json"


def encode_problem(problem: Problem) -> Encoded:
    """The whole answer to a request that failed as one."""
    body = orjson.dumps({"type": "about:blank", **problem.to_plain()})
    return Encoded(problem.status, [("Content-Type", CONTENT_TYPE), *retry_after(problem)], body)


def retry_after(problem: Problem) -> list[tuple[str, str]]:
    """The Retry-After header, in whole seconds (rounded up), where the problem says when to come again."""
    return (
        [] if problem.retry_after is None else [("Retry-After", str(max(0, math.ceil(problem.retry_after))))]
    )
