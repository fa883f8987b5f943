"""A real `rowserve serve` in a process of its own, as its clients and /proc see it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 120.0


class Served:
    """The server, ready, while the block lasts.

    `arguments` are those of `rowserve serve`; `python` is what runs it, with `environment` beside this process's own.
    """

    def __init__(
        self, *arguments: str, python: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self._arguments = arguments
        self._python = python
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Served:
        listen = f"127.0.0.1:{self.port}"
        command = [*self._python, "-m", "rowserve.tools.cli", "serve", "--listen", listen, *self._arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=self._environment, cwd="/")
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._process.kill()
                raise RuntimeError("the server did not start")
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        try:
            return self.connect().status_of("GET", "/readyz") == 200
        except OSError:
            return False

    def connect(self) -> Client:
        """A connection that is kept."""
        return Client(self.port)

    def signal(self, number: int) -> None:
        """To the server."""
        self._process.send_signal(number)

    def core_seconds(self) -> float:
        """What the server has used of all cores so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def private_bytes(self) -> int:
        """RssAnon: its own memory; the mapped cache file does not count."""
        (line,) = [line for line in self._proc("status").splitlines() if line.startswith("RssAnon:")]
        return int(line.split()[1]) * 1024

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text(encoding="ascii", errors="replace")


class Client(http.client.HTTPConnection):
    """A kept connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, timeout=300)

    def status_of(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> int:
        """Sends a request and reads its whole answer."""
        return self.ask(method, path, body, content_type)[0]

    def ask(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> tuple[int, bytes]:
        """The same: status and body."""
        self.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        response = self.getresponse()
        return response.status, response.read()


def form(files: list[bytes]) -> tuple[bytes, str]:
    """A multipart/form-data body of files, and its content type."""
    boundary = "----------benchmark0f1e2d3c4b5a"
    parts = []
    for index, content in enumerate(files):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="{index}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
