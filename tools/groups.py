"""What a source gives, a group at a time, before any model has looked at it. Reader thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rowserve.graphs.rows import Array
from rowserve.handlers.lines import Line
from rowserve.handlers.ndjson import Mode


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text; `mode` says what they may be."""

    lines: Sequence[Line]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of pictures."""

    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Columns:
    """`count` rows as arrays [count, ...] by input name; "" names the only input there is."""

    arrays: Mapping[str, Array]
    count: int


Group = Lines | Paths | Columns
