"""What the cache says of itself, as plain numbers that a metrics page can read at any time.

Each number is written by one thread only and may be read by all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

OK = "ok"
OFF = "off"
READ_ONLY = "read-only"
FAILING = "failing"


@dataclass(slots=True)
class CacheStats:
    """`state` is "ok", "off", "read-only" or "failing"; `why` says more, and is "" while all is well.

    Rows and aliases alike count as writes. `dropped`: not written, for want of room or time. `failed`: the disk or the
    file refused. `rows`, `aliases`, `bytes` (pages in use), `file_bytes` and `evicted` are the file's, as of this
    process's last look.
    """

    log: Callable[[str], None] = field(default=lambda line: None, repr=False)
    state: str = OK
    why: str = ""
    committed: int = 0
    dropped: int = 0
    failed: int = 0
    bad_checksums: int = 0
    errors: int = 0
    queued_rows: int = 0
    queued_bytes: int = 0
    rows: int = 0
    aliases: int = 0
    bytes: int = 0
    file_bytes: int = 0
    size: int = 0
    evicted: int = 0
    commits: int = 0

    def become(self, state: str, why: str = "") -> None:
        """Change the state; one log line for each change, none for a repetition."""
        changed, self.state, self.why = (state, why) != (self.state, self.why), state, why
        if changed and state == OK:
            self.log("cache: works again")
        elif changed:
            self.log(f"cache: {state}: {why}")

    @property
    def described(self) -> str:
        """State and reason in one string."""
        return f"{self.state}: {self.why}" if self.why else self.state
