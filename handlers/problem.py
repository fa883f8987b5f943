"""The one error that users see: RFC 9457 problem details.

Pure values, safe on any thread. Whoever finds a fault raises a Problem with the status a client shall see;
each format writes it in its own form.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class Problem(Exception):
    """A fault that has an answer: `status` (HTTP), `title` (its kind), `detail` (what is wrong, what to do).

    `reason` is the label under which a failed row is counted. `retry_after` is in seconds. `detail` may quote a
    client: what is no Unicode in it (a lone surrogate, which JSON allows) becomes a question mark.
    """

    def __init__(
        self, status: int, detail: str, *, title: str = "", reason: str = "", retry_after: float | None = None
    ) -> None:
        detail = detail if detail.isascii() else detail.encode("utf-8", "replace").decode()
        super().__init__(detail)
        self.status = status
        self.title = title or phrase(status)
        self.detail = detail
        self.reason = reason or self.title.lower().replace(" ", "_")
        self.retry_after = retry_after

    def anew(self) -> Problem:
        """The same, to be raised where this one is kept: what is raised holds all that its frames held, for as long."""
        return Problem(
            self.status, self.detail, title=self.title, reason=self.reason, retry_after=self.retry_after
        )

    def to_plain(self) -> dict[str, Any]:
        """The members of application/problem+json, less `type` (about:blank)."""
        return {"status": self.status, "title": self.title, "detail": self.detail}

    def __repr__(self) -> str:
        return f"Problem({self.status}, {self.detail!r})"


def phrase(status: int) -> str:
    """The status in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else f"Status {status}"
