"""Who asks, as `authorize` found it. Pure values, any thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `origin` is that of a page of another origin which may, "" for all others.

    `lines` stand in the head of every answer, faults included. `preflight` is whether the request itself asks for
    nothing but whether that page may send another.
    """

    origin: str = ""
    lines: bytes = b""
    preflight: bool = False


ANYBODY = Principal()
