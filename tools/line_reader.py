"""Lines from a file descriptor, in groups: whatever is there at once, up to full groups. Reader thread.

A person who types a line has it passed on at once; a pipe that runs ahead is read in full groups.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from rowserve.handlers.lines import MAX_LINE, Line, LineSplitter

READ_BYTES = 1 << 20
GROUP_LINES = 256
GROUP_BYTES = 4 << 20
LINGER_MS = 2
"""How long a group waits for more lines while there is other work: a slow writer fills it meanwhile."""


class DescriptorLines:
    """The lines of `descriptor`. `idle` tells whether nothing else is on its way, so that waiting would help nobody."""

    def __init__(
        self,
        descriptor: int,
        idle: Callable[[], bool] = lambda: True,
        *,
        group_lines: int = GROUP_LINES,
        max_line: int = MAX_LINE,
    ) -> None:
        self._descriptor = descriptor
        self._idle = idle
        self._group_lines = group_lines
        self._splitter = LineSplitter(max_line)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def groups(self) -> Iterator[list[Line]]:
        """Groups of lines until the end of the input. A line that is too long stands in its place as a Problem."""
        group: list[Line] = []
        nbytes = 0
        while piece := self._read():
            for line in self._splitter.feed(piece):
                group.append(line)
                nbytes += len(line) if isinstance(line, bytes) else 0
                if len(group) >= self._group_lines or nbytes >= GROUP_BYTES:
                    yield group
                    group, nbytes = [], 0
            if group and not self._more():
                yield group
                group, nbytes = [], 0
        group += self._splitter.finish()
        if group:
            yield group

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:  # somebody who shares the descriptor has made it so
                self._poll.poll()

    def _more(self) -> bool:
        """Whether there is more to read now, or very soon."""
        return bool(self._poll.poll(0 if self._idle() else LINGER_MS))
