"""A gRPC Predict of one cached row, as a client sees it, against an echo that takes and gives the same bytes.

Each server is a process of its own. The bare one has the same layout: grpc.aio on a thread, each call handed to a
Twisted reactor and back. The echo without that hop shows what the layout itself costs.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.made_up import MadeUp, flat, numbered_rows
from benchmarks.table import Figure, Pair, emit, median_pair, timed
from rowserve.graphs.rows import Rows
from rowserve.handlers.items import Answer, Options
from rowserve.handlers.tensorflow_messages import PredictRequest
from rowserve.handlers.tensorflow_serving_grpc import encode_predict

PATH = "/tensorflow.serving.PredictionService/Predict"
ANSWER = 4000
ROWS = 64
TOGETHER = 16
SIZES = (784, 150_528)
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))


def requests(width: int) -> list[bytes]:
    """One row each, as `tf.make_tensor_proto` writes them."""
    shape = {"dim": [{"size": 1}, {"size": width}]}
    return [
        PredictRequest(
            model_spec={"name": "made_up"},
            inputs={"x": {"dtype": "DT_UINT8", "tensor_shape": shape, "tensor_content": row.tobytes()}},
        ).SerializeToString()
        for row in numbered_rows(ROWS, width)
    ]


# The servers


def made_up(folder: str, width: int) -> MadeUp:
    """The model, with all rows in its cache."""
    model = MadeUp(Path(folder), flat(width), ANSWER)
    model.fill(numbered_rows(ROWS, width), numbered_rows(ROWS, ANSWER).view("<f4"))
    return model


def serve_rows(width: int) -> None:
    """rowserve: lane, reactor, pipeline and cache."""
    from twisted.internet import reactor

    from rowserve.server.grpc_lane import GrpcLane
    from rowserve.server.models import Models
    from rowserve.server.one_core import LinuxCores, OneCore
    from rowserve.server.tensorflow_serving_grpc import TensorFlowServing

    with tempfile.TemporaryDirectory() as folder:
        model = made_up(folder, width)
        models = Models()
        state = models.expect("made_up", 1)
        state.model, state.state = model.model, "ready"
        services = TensorFlowServing(models, 1 << 26).services()
        one_core = OneCore(reactor, LinuxCores())  # type: ignore[arg-type]
        one_core.start()
        lane = GrpcLane(services, model.pipeline, model.metrics, 1 << 26, reactor, one_core)
        run_until_told(lane.start("127.0.0.1:0"), reactor)


def serve_echo(width: int, hop: bool) -> None:
    """An echo: of every request it gives the same answer, of the size of a real one."""
    from twisted.internet import reactor

    with tempfile.TemporaryDirectory() as folder:
        model = made_up(folder, width)
        answer = model.pipeline.answer(model.model, model.signature, [row(width)], Options())
        assert isinstance(answer, Answer)
        response = encode_predict(model.model.face, model.signature, None, answer)
        model.cache.close()
    loop = asyncio.new_event_loop()

    async def plain(_: bytes, __: Any) -> bytes:
        return response

    async def over(_: bytes, __: Any) -> bytes:
        done: asyncio.Future[bytes] = loop.create_future()
        reactor.callFromThread(lambda: loop.call_soon_threadsafe(done.set_result, response))  # type: ignore[attr-defined]
        return await done

    async def start() -> tuple[Any, int]:
        _, service, name = PATH.split("/")
        handlers = {name: grpc.unary_unary_rpc_method_handler(over if hop else plain)}
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    threading.Thread(target=loop.run_forever, daemon=True).start()
    listening: Future[tuple[Any, int]] = asyncio.run_coroutine_threadsafe(start(), loop)
    _server, port = listening.result()  # it would stop if nobody held it
    run_until_told(port, reactor)


def row(width: int) -> Rows:
    """The first row."""
    return Rows({"x": numbered_rows(ROWS, width)[:1]}, 1)


def run_until_told(port: int, reactor: Any) -> None:
    """Says the port, and runs until stdin ends."""
    gc.collect()
    gc.freeze()  # as rowserve does when its models are loaded
    print(port, flush=True)

    def wait() -> None:
        sys.stdin.read()
        reactor.callFromThread(reactor.stop)

    threading.Thread(target=wait, daemon=True).start()
    reactor.run()


SERVERS: dict[str, Callable[[int], None]] = {
    "rows": serve_rows,
    "hop": lambda width: serve_echo(width, True),
    "plain": lambda width: serve_echo(width, False),
}


# The client


@contextmanager
def served(kind: str, width: int) -> Iterator[Any]:
    """A method of a server that runs."""
    command = [sys.executable, "-m", "benchmarks.grpc_echo", "--serve", kind, str(width)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            yield channel.unary_unary(PATH)
        process.communicate()


def one_by_one(method: Any, messages: list[bytes]) -> None:
    """A call after the other."""
    for message in messages:
        method(message)


def together(method: Any, messages: list[bytes]) -> None:
    """Several at a time."""
    for at in range(0, len(messages), TOGETHER):
        for call in [method.future(message) for message in messages[at : at + TOGETHER]]:
            call.result()


def against(width: int, quick: bool) -> Iterator[tuple[str, Pair, float]]:
    """Calls one by one and together: against the echo of the same layout, and the ratio to that without the hop."""
    messages = requests(width)
    turns = 3 if quick else 61
    with ExitStack() as stack:
        methods = [stack.enter_context(served(kind, width)) for kind in SERVERS]
        assert len({method(messages[0]) for method in methods}) == 1, "the answers differ"
        _, call = methods[0].with_call(messages[0])
        assert ("cache-status", "rowserve; hit") in call.trailing_metadata(), "not a hit"
        for ask, told in ((one_by_one, "one by one"), (together, f"{TOGETHER} at a time")):
            for method in methods:
                ask(method, messages)
            times = [[timed(partial(ask, method, messages)) / ROWS for method in methods] for _ in range(turns)]
            same = median_pair([(rows, hop) for rows, hop, _ in times])
            yield told, same, median_pair([(rows, plain) for rows, _, plain in times]).ratio


def figures(quick: bool) -> Iterator[Figure]:
    """All of them."""
    for width in SIZES:
        for told, same, plain in against(width, quick):
            what = f"gRPC Predict of a cached row of {width:,} bytes, {told}"
            yield Figure(what, same.ratio, "x", 1.3, f"{same.detail(1e6, 'us a call')}; {plain:.2f}x without the hop")


if __name__ == "__main__":
    if "--serve" in sys.argv:
        SERVERS[sys.argv[2]](int(sys.argv[3]))
    else:
        emit(figures)
