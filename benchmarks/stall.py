"""How long the reactor stands still while a 64 MiB upload comes in: this server's door against Klein's own; and while
60 MB of JSON are read.

The servers are programs of their own (`python -m benchmarks.stall ours|stock`) on an otherwise idle reactor that ticks
each millisecond; the longest gap between two ticks is the stall. Stock is a Klein route as its manual has it, which
lets Twisted parse the form. The JSON is a TensorFlow Serving predict whose last number is none, so that all of it is
read, by the fast way and by the slow one, and no row is asked for.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.served import Client, form
from benchmarks.table import Figure, emit, median_pair, number

TICK = 0.001
MIB = 1 << 20
JSON = "application/json"


class Ticking:
    """Ticks, and remembers the longest gap."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._last = time.perf_counter()
        self.longest = 0.0

    def tick(self) -> None:
        """Now, and again."""
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._reactor.callLater(TICK, self.tick)


def serve(kind: str) -> None:
    """A server: prints its port; for each line on stdin prints the longest gap since the last."""
    from twisted.internet import reactor as global_reactor

    from rowserve.tools.run_reactor import SWITCH_SECONDS

    reactor: Any = global_reactor
    sys.setswitchinterval(SWITCH_SECONDS)  # as `rowserve serve` does
    with tempfile.TemporaryDirectory() as folder:
        site = ours(reactor, Path(folder)) if kind == "ours" else stock()
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        ticking = Ticking(reactor)

        def talk() -> None:
            print(port.getHost().port, flush=True)
            for _ in sys.stdin:
                print(max(ticking.longest - TICK, 1e-6), flush=True)
                ticking.longest = 0.0
            reactor.callFromThread(reactor.stop)

        reactor.callWhenRunning(ticking.tick)
        reactor.callWhenRunning(lambda: threading.Thread(target=talk, daemon=True).start())
        reactor.run()


def stock() -> Any:
    """A Klein application that takes a form."""
    from klein import Klein
    from twisted.web.server import Site

    app = Klein()

    @app.route("/images/made_up", methods=["POST"])  # type: ignore[untyped-decorator]
    def upload(request: Any) -> bytes:
        return b"%d" % sum(len(part) for parts in request.args.values() for part in parts)

    return Site(app.resource())


def ours(reactor: Any, folder: Path) -> Any:
    """The server's own site over a model that takes pictures; it needs no graph, for what comes is no picture."""
    from twisted.internet.threads import deferToThreadPool

    from benchmarks.made_up import MadeUp
    from rowserve.graphs.signature import TensorSpec
    from rowserve.handlers.picture_settings import PictureCard
    from rowserve.handlers.pictures import picture_decoders
    from rowserve.server.limits import Limits
    from rowserve.server.listener import ApiSite
    from rowserve.server.models import Models
    from rowserve.server.site import Api

    pool = reactor.getThreadPool()
    made_up = MadeUp(folder, TensorSpec("x", "uint8", (224, 224, 3)), 4000)
    made_up.pipeline.defer_to_pool = lambda call, *args: deferToThreadPool(reactor, pool, call, *args)
    made_up.model.face.decoders.update(picture_decoders(PictureCard(), made_up.model.face.signatures))
    models = Models()
    state = models.expect("made_up", 1)
    state.model, state.state = made_up.model, "ready"
    limits, pooled = Limits(), made_up.pipeline.defer_to_pool
    return ApiSite(Api(models, made_up.pipeline, made_up.cache, made_up.metrics, limits, reactor, pooled))


class Uploaded:
    """A server program, and uploads to it."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "benchmarks.stall", kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def stall(self) -> float:
        """The longest gap since last asked."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def upload(self, body: bytes, content_type: str, expected: int, path: str = "/images/made_up") -> float:
        """Sends the body; the longest gap until it is answered."""
        client = Client(self._port)
        client.connect()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(0.2)
        self.stall()
        status, answer = client.ask("POST", path, body, content_type)
        assert status == expected, (status, answer[:500])
        time.sleep(0.05)
        client.close()
        return self.stall()

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def figures(quick: bool) -> Iterator[Figure]:
    """The form, and the JSON."""
    yield form_figure(quick)
    yield json_figure(quick)


def form_figure(quick: bool) -> Figure:
    """A form, against stock Klein."""
    size, turns = (16, 3) if quick else (64, 9)
    body, content_type = form([os.urandom(size * MIB - 4096)])
    servers = Uploaded("ours"), Uploaded("stock")
    pairs = []
    for _ in range(turns):
        pairs.append((servers[0].upload(body, content_type, 422), servers[1].upload(body, content_type, 200)))
    for server in servers:
        server.close()
    pair = median_pair(pairs)
    what = f"longest reactor stall while a {size} MiB form comes in, against stock Klein"
    worst = number(max(ours for ours, _ in pairs) * 1e3)
    return Figure(what, pair.ratio, "x", 1 / 50, f"{pair.detail(1e3, 'ms')}; our worst of {turns}: {worst} ms")


def json_figure(quick: bool) -> Figure:
    """A predict of many small numbers."""
    size, turns = (8, 1) if quick else (60, 5)
    row = f"[{','.join(str(i % 256) for i in range(224 * 224 * 3))}]"
    count = size * 1_000_000 // len(row)
    body = f'{{"instances": [{",".join([row] * count)[:-1]}.5]}}'.encode()
    server = Uploaded("ours")
    stalls = sorted(server.upload(body, JSON, 400, "/v1/models/made_up:predict") for _ in range(turns))
    server.close()
    what = f"longest reactor stall while {size} MB of TensorFlow Serving JSON are read"
    return Figure(what, stalls[len(stalls) // 2] * 1e3, "ms", 50, f"worst of {turns}: {number(stalls[-1] * 1e3)} ms")


if __name__ == "__main__":
    if sys.argv[1:] in (["ours"], ["stock"]):
        serve(sys.argv[1])
    else:
        emit(figures)
