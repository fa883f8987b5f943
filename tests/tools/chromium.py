"""A real Chromium without a window, driven by its DevTools protocol over a pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def chromium() -> str:
    """The browser's path. Where there is none, tests are skipped; where CI=true is set, they fail."""
    found = shutil.which("chromium")
    if found is None:
        assert os.environ.get("CI") != "true", "the tests marked `browser` need chromium"
        pytest.skip("needs chromium on the PATH")
    return found


class Browser:
    """One page. The protocol: JSON, ended by a NUL."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, os.fdopen(receive, "rb")
        self._number = 0
        self._session: dict[str, str] = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._call("Page.enable")

    def _read(self) -> Any:
        data = b""
        while not data.endswith(b"\0"):
            byte = self._receive.read(1)
            assert byte, "the browser has gone"
            data += byte
        return json.loads(data[:-1])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        told = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._send, json.dumps(told).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def go(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        self._call("Page.navigate", url=url)
        self.wait()

    def wait(self) -> None:
        """Until the next page is loaded."""
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """What an expression on the page comes to, awaited."""
        told = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return told["result"].get("value")


@contextmanager
def browser(home: Path, *names: str) -> Iterator[Browser]:
    """A browser with a profile of its own, for which these names are 127.0.0.1."""
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in names)
    to_browser, from_browser = os.pipe(), os.pipe()
    pipes = f'exec 3<&{to_browser[0]} 4>&{from_browser[1]}; exec "$@"'
    command = [chromium(), *FLAGS, f"--user-data-dir={home}", f"--host-resolver-rules={rules}"]
    with subprocess.Popen(
        ["bash", "-c", pipes, "bash", *command],
        pass_fds=(to_browser[0], from_browser[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0])
        finally:
            process.kill()
