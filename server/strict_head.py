"""The head of a request, read more strictly than Twisted's channel does. Reactor thread.

What could be read two ways is refused: folded headers, any Transfer-Encoding but `chunked`, a Host missing
(HTTP/1.1) or given twice, control characters in values. Stock itself refuses two lengths, a length beside chunks and
their like.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http import HTTPChannel

from rowserve.server.framing import content_length_fault, transfer_encoding_fault, value_fault, wants_close


class StrictHead(HTTPChannel):
    """The half of a connection that reads heads. The other half says what `refuse` does, and when it is `deaf`."""

    site: Any
    requests: list[Any]
    transport: Any

    @property
    def deaf(self) -> bool:
        """Whether all that comes is thrown away."""
        raise NotImplementedError

    def refuse(self, status: int, detail: str) -> None:
        """The client broke the protocol: say so and close."""
        raise NotImplementedError

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        """A line of the head."""
        if self.deaf:
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(431, f"the headers are larger than {self.totalHeadersSize} bytes")
        elif line[:1] in (b" ", b"\t"):
            self.refuse(400, "a header is folded over two lines")
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        """A line without an end."""
        self.refuse(431, f"a line of the headers is larger than {self.MAX_LENGTH} bytes")

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802
        """One header. False when it was refused."""
        fault = value_fault(line)
        if fault:
            self.refuse(400, fault)
            return False
        return bool(super().headerReceived(line))

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:  # noqa: N802
        fault = ""
        if header == b"Content-Length":
            fault = content_length_fault(data)
        elif header == b"Transfer-Encoding":
            fault = transfer_encoding_fault(data)
        if fault:
            self.refuse(400, fault)
            return False
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: N802
        """Whether the connection may carry another request after this one."""
        if version != b"HTTP/1.1" or self.site.draining or wants_close(request.requestHeaders):
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return True

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        self.refuse(400, "the request cannot be parsed")
