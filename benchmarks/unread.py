"""The server's private memory while clients ask for large answers and do not read them, and once they have gone."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.served import Client, Served
from benchmarks.side_by_side.bare import child
from benchmarks.table import Figure, emit

CLIENTS, ROWS, WIDTH = 25, 150_000, 8
BUDGET_MIB = 256
UNREAD_SECONDS, QUICK_SECONDS = 90, 5
KEPT = 10.0  # per cent
SETTLE_SECONDS = 5.0
# malloc_trim(3), when the process is told to: what is free and not given back says nothing of what is held.
TRIMS = """
import ctypes, gc, signal

def trim(number, frame):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)

signal.signal(signal.SIGUSR2, trim)
"""
MIB = 1 << 20


def save(folder: Path) -> None:
    """x float32 [N, 1] becomes y float32 [N, WIDTH], numbers of many digits: answers are far larger than requests."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(1).standard_normal((1, WIDTH)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(x, module.w)}

    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": serve})


def request(rows: int) -> bytes:
    """A predict call of so many different rows."""
    instances = [[value] for value in random.Random(1).sample(range(10 * rows), rows)]
    body = json.dumps({"instances": instances}).encode()
    head = b"POST /v1/models/wide:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def trimmed(server: Served) -> int:
    """The server's private bytes, once it has given back what it does not use."""
    time.sleep(SETTLE_SECONDS)
    server.signal(signal.SIGUSR2)
    time.sleep(1)
    return server.private_bytes()


def figures(quick: bool) -> Iterator[Figure]:
    """Two."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with child() as process:
            process.submit(save, folder / "models" / "wide").result()
        (folder / "sitecustomize.py").write_text(TRIMS, encoding="ascii")
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        arguments = ("--models", str(folder / "models"), "--cache", str(folder / "cache"))
        with Served(*arguments, environment={"PYTHONPATH": paths}) as server:
            asked = request(ROWS // 50 if quick else ROWS)
            answer = read_whole(server, asked)
            before = trimmed(server)
            peak = watch(server, asked, QUICK_SECONDS if quick else UNREAD_SECONDS)
            after = trimmed(server)
            assert read_whole(server, asked) == answer
    told = f"{CLIENTS} clients, answers of {answer / 1e6:.1f} MB; "
    detail = f"{told}{before / MIB:,.0f} MiB before, {peak / MIB:,.0f} MiB at the peak"
    grown = (peak - before) / MIB
    yield Figure("private memory that unread answers add at the peak", grown, " MiB", BUDGET_MIB, detail)
    detail = f"{told}{before / MIB:,.0f} MiB before, {after / MIB:,.0f} MiB after, each after malloc_trim"
    yield Figure("private memory once they have gone", 100 * (after / before - 1), " %", KEPT, detail)


def read_whole(server: Served, asked: bytes) -> int:
    """One client that reads: the bytes of its answer."""
    client: Client = server.connect()
    client.connect()
    client.sock.sendall(asked)
    response = client.response_class(client.sock, method="POST")
    response.begin()
    assert response.status == 200, response.read()[:300]
    return len(response.read())


def watch(server: Served, asked: bytes, seconds: float) -> int:
    """The peak while CLIENTS do not read, however they fare."""
    peak = 0
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))).sendall(asked)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            peak = max(peak, server.private_bytes())
            time.sleep(0.05)
    return peak


if __name__ == "__main__":
    emit(figures)
