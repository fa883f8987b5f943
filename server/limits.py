"""What one client may take of the server. Pure values; all of them are settings."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    `body` counts inflated bytes, where a body comes deflated. A stream of lines (/rows) has no limit as a whole: its
    memory is bounded by `line_bytes`, `stream_rows` and `stream_bytes`.
    """

    body_bytes: int = 64 * MIB
    parts: int = 1000
    headers_bytes: int = 16384
    headers_seconds: float = 10.0
    idle_seconds: float = 60.0
    # A body must have come at this rate, on average, at any time after the grace.
    body_rate: float = 1000.0
    body_grace_seconds: float = 10.0
    # A client that takes nothing of an answer for so long is cut off (an answer goes out in pieces of 64 KiB).
    write_seconds: float = 30.0
    # After an early answer (413 and its like) what the client still sends is thrown away, up to these bounds.
    linger_seconds: float = 30.0
    linger_quiet_seconds: float = 2.0
    linger_bytes: int = 512 * MIB
    # A connection whose last answer is not taken for so long is aborted.
    close_seconds: float = 15.0
    # JSON above these sizes is parsed and encoded on the pool.
    pool_parse_bytes: int = MIB // 4
    pool_encode_bytes: int = MIB // 8
    line_bytes: int = 16 * MIB
    stream_rows: int = 1024
    stream_bytes: int = 8 * MIB
    query_fields: int = 100
