"""Those that are measured: rowserve, the rivals of a kit, the bare limit. Each is a server on this machine."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from benchmarks.served import Served
from benchmarks.side_by_side.rows import FORMS, Form, Model

START_SECONDS = 120.0
# Where each rival takes rows of a model, and how it wants them written.
PEERS: Mapping[str, tuple[str, str]] = {
    "triton-direct": ("/v2/models/{}/infer", "binary"),
    "triton": ("/v2/models/{}/infer", "binary"),
    "mosec": ("/{}", "raw"),
    "fastapi": ("/{}/raw", "raw"),
    "flask": ("/{}/raw", "raw"),
    "ray": ("/{}", "raw"),
    "torchserve": ("/predictions/{}", "raw"),
    "bentoml": ("/{}", "json"),
    "litserve": ("/{}", "json"),
    "mlserver": ("/v2/models/{}/infer", "v2json"),
}
UPLOADS: Mapping[str, tuple[str, str]] = {
    "fastapi": ("/mobilenet/image", "file"),
    "flask": ("/mobilenet/image", "file"),
    "bentoml": ("/mobilenet/image", "file"),
    "ray": ("/mobilenet", "file"),
    "litserve": ("/mobilenet", "file"),
    "torchserve": ("/predictions/mobilenet", "data"),
}


class Side:
    """A server that runs while the block lasts."""

    name: str
    port: int
    form: Form
    checked = True

    def path(self, model: Model) -> str:
        """Where it takes the model's rows."""
        raise NotImplementedError

    def url(self, model: Model) -> str:
        """The same as a URL."""
        return f"http://127.0.0.1:{self.port}{self.path(model)}"

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        raise NotImplementedError


class Rowserve(Side):
    """`rowserve serve` with all the models, over a cache of its own."""

    form = FORMS["binary"]

    def __init__(self, models: Path, cache: Path, name: str = "rowserve") -> None:
        self.name = name
        self.served = Served("--models", str(models), "--cache", str(cache))

    def __enter__(self) -> Rowserve:
        self.served.__enter__()
        self.port = self.served.port
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.served.__exit__(kind, error, at)

    def path(self, model: Model) -> str:
        """See Side."""
        return f"/v2/models/{model.name}/infer"


class Kit:
    """The folder with the rivals' scripts. `port` is the first of a thousand that they may take."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._port = port
        work = os.environ.get("PEERS_WORK") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "peers"
        self.models = Path(work) / "models"

    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`peer.sh` with these."""
        command = ["bash", str(self.folder / "peer.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def installed(self) -> list[str]:
        """The rivals that can be started."""
        lines = [line.split() for line in self.script("list").stdout.splitlines()[1:]]
        return [words[0] for words in lines if words[1:2] == ["yes"] and words[0] in PEERS]

    def next_ports(self) -> int:
        """The first of ten."""
        self._port += 10
        return self._port


class Peer(Side):
    """A rival."""

    def __init__(self, kit: Kit, peer: str, *arguments: str) -> None:
        self.name = " ".join((peer, *arguments))
        self._kit = kit
        self._peer = peer
        self._arguments = arguments
        self._path, form = PEERS[peer]
        self.form = FORMS[form]

    def __enter__(self) -> Peer:
        self.port = self._kit.next_ports()
        start = ("start", self._peer, str(self.port), *self._arguments)
        for words in (start, ("wait", self._peer, f"{START_SECONDS:.0f}")):
            done = self._kit.script(*words)
            if done.returncode:
                self._kit.script("stop", self._peer)
                raise RuntimeError(f"{self.name}: {(done.stdout + done.stderr).strip()[-300:]}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kit.script("stop", self._peer)

    def path(self, model: Model) -> str:
        """See Side."""
        return self._path.format(model.name)


class BareLimit(Side):
    """The kit's `bare/limit.py`: hashes, looks up, answers, and nothing else. `arguments` are its mode and model."""

    form = FORMS["binary"]
    name = "bare limit"

    def __init__(self, kit: Kit, *arguments: str) -> None:
        self._kit = kit
        self._arguments = arguments
        self.checked = arguments[0] == "miss"  # its hits are 4 kB of anything

    def __enter__(self) -> BareLimit:
        self.port = self._kit.next_ports()
        script = str(self._kit.folder / "bare" / "limit.py")
        command = [sys.executable, "-B", script, str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                assert self._process.stderr is not None
                raise RuntimeError(f"{self.name}: {self._process.stderr.read()[-300:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(20)

    def path(self, model: Model) -> str:
        """See Side."""
        return "/"


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.connect()
        connection.close()
    except OSError:
        return False
    return True
