"""How a Problem is told over gRPC: the name of a status code and a message. Pure values, safe on any thread.

Codes go by the HTTP status, the way TensorFlow Serving pairs the two; a GrpcProblem names its own.
"""

from __future__ import annotations

from rowserve.handlers.problem import Problem

CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
LONGEST = 1024
CUT = "...TRUNCATED"


class GrpcProblem(Problem):
    """A Problem that HTTP's statuses cannot tell apart from others: `code` is its gRPC code, such as UNAVAILABLE."""

    def __init__(self, code: str, status: int, detail: str, *, reason: str = "") -> None:
        super().__init__(status, detail, reason=reason)
        self.code = code


def grpc_fault(problem: Problem) -> tuple[str, str]:
    """The code's name and the message, of at most 1024 bytes and the word that says where it was cut."""
    if isinstance(problem, GrpcProblem):
        code = problem.code
    else:
        code = CODES.get(problem.status, "INVALID_ARGUMENT" if 400 <= problem.status < 500 else "INTERNAL")
    raw = problem.detail.encode()
    if len(raw) <= LONGEST:
        return code, problem.detail
    return code, raw[:LONGEST].decode(errors="ignore") + CUT
