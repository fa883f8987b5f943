"""multipart/form-data as it comes in, chunk by chunk, with limits.

Runs on the reactor, microseconds a chunk. The parts' bytes are kept exactly as they came:
Content-Transfer-Encoding, which RFC 7578 deprecates, is never decoded, so that a proxy and this server always
agree on a picture's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from rowserve.graphs.rows import Buffer
from rowserve.handlers.problem import Problem

FORM = "multipart/form-data"
JOINED = 1 << 18  # bytes up to which joining a part's chunks at its end costs less than a moment


@dataclass(frozen=True, slots=True)
class Part:
    """One part, whole. `filename` and `content_type` are "" where the client named none."""

    name: str
    filename: str
    content_type: str
    data: Buffer

    @property
    def is_file(self) -> bool:
        """Whether this is an upload, not a plain field of a form."""
        return bool(self.filename) or (self.content_type != "" and not self.content_type.startswith("text/"))


@dataclass(frozen=True, slots=True)
class MultipartLimits:
    """Bytes of the whole body, number of parts, bytes of one header line of a part, header lines a part."""

    body: int = 64 * 1024 * 1024
    parts: int = 1000
    header_line: int = 4096
    headers: int = 8


class MultipartReader:
    """Feed it the body as it comes, then call `finish` for the parts.

    Every fault is a Problem: 413 for a limit, 400 for anything malformed. After one, whatever else comes is
    dropped, and `finish` raises it again; the memory of the parts is let go at once.
    """

    def __init__(self, content_type: str, limits: MultipartLimits = MultipartLimits()) -> None:
        self.limits = limits
        self.boundary = boundary_of(content_type)
        self.received = 0
        self._parts: list[Part] = []
        self._segment: MultipartSegment | None = None
        self._chunks: list[bytes] = []
        self._large: bytearray | None = None  # takes the place of the chunks of a large part
        self._fault: Problem | None = None
        try:
            self._parser = PushMultipartParser(
                self.boundary,
                max_header_size=limits.header_line,
                max_header_count=limits.headers,
                max_segment_count=limits.parts,
            )
        except MultipartError as error:
            raise malformed(f"{error} (in the Content-Type header)") from None

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body. Raises Problem 400 or 413, once."""
        if self._fault is not None or not chunk:
            return
        self.received += len(chunk)
        try:
            if self.received > self.limits.body:
                raise too_large(f"the body has more than {self.limits.body:,} bytes")
            self._take(chunk)
        except Problem as problem:
            self._fail(problem)
            raise

    def finish(self) -> list[Part]:
        """The parts, after the last chunk. Raises Problem 400 or 413."""
        if self._fault is not None:
            raise self._fault
        try:
            self._parser.close()
        except MultipartError:
            problem = malformed(self._missing_end())
            self._fail(problem)
            raise problem from None
        if not self._parts:
            raise malformed("the body has no parts")
        return self._parts

    def _take(self, chunk: bytes) -> None:
        try:
            for event in self._parser.parse(chunk):
                if event is None:
                    self._complete()
                elif isinstance(event, MultipartSegment):
                    self._segment = event
                elif self._large is not None:
                    self._large += event
                else:
                    self._chunks.append(event)
                    if self._segment is not None and self._segment.bytes_received > JOINED:
                        self._large, self._chunks = bytearray().join(self._chunks), []
        except ParserLimitReached as error:
            raise too_large(self._which_limit(str(error))) from None
        except MultipartError as error:
            raise malformed(f"{error.args[0]} (part {len(self._parts) + 1})") from None

    def _complete(self) -> None:
        segment = self._segment
        data = b"".join(self._chunks) if self._large is None else memoryview(self._large).toreadonly()
        self._chunks, self._large = [], None
        if segment is not None:
            self._parts.append(Part(segment.name or "", segment.filename or "", segment.content_type or "", data))

    def _fail(self, problem: Problem) -> None:
        self._fault = problem
        self._parts, self._chunks, self._large, self._segment = [], [], None, None
        self._parser.close(check_complete=False)

    def _which_limit(self, told: str) -> str:
        if "segment count" in told:
            return f"the body has more than {self.limits.parts:,} parts"
        limits = f"{self.limits.headers} lines of {self.limits.header_line:,} bytes"
        return f"part {len(self._parts) + 1}: {told} (at most {limits})"

    def _missing_end(self) -> str:
        if not self.received:
            return "the body is empty"
        if self._segment is None:
            return f"no part begins with the boundary that the Content-Type header names, {self.boundary!r}"
        return f"the body ends before its closing boundary, after {len(self._parts)} whole part(s)"


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type header names. Raises Problem 400."""
    kind, options = parse_options_header(content_type)
    if kind != FORM:
        raise malformed(f"the Content-Type is {kind or 'missing'}, not {FORM}")
    boundary = options.get("boundary", "")
    if not boundary:
        raise malformed("the Content-Type header names no boundary")
    if len(boundary) > 200 or not boundary.isascii():
        raise malformed("the Content-Type header names an impossible boundary")
    return str(boundary)


def malformed(detail: str) -> Problem:
    """The body is not what its Content-Type says."""
    return Problem(400, f"multipart: {detail}", title="Malformed multipart")


def too_large(detail: str) -> Problem:
    """A limit was passed."""
    return Problem(413, detail, title="Request too large", reason="too_large")
