"""Requests that a hand has spoilt: each connection gets whole answers or none, nothing is logged, nothing is left."""

from __future__ import annotations

import gc
import gzip
import random
import tracemalloc

import numpy as np
import pytest

from rowserve.server.limits import Limits
from tests.handlers.graphpipe_requests import METADATA, infer_request
from tests.http_doubles import FORM, Server, chunked, form, head, logged, parse

BODY = form(b"abc", b"broken", b"x" * 300)
ROWS = np.array([[1, 2], [3, 4]], np.float32)
BINARY = b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}]}'
INFER = b'{"id":"a","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"outputs":[{"name":"sum"}]}'
JSON_TYPE = {"Content_Type": "application/json"}
BODIES = {  # (path, headers) of each protocol, and bodies that it takes
    ("/v1/models/m:predict", ()): [b'{"instances": [[1, 2]]}', b'{"inputs": {"x": [[1, NaN]]}}'],
    ("/v1/models/m:classify", ()): [b'{"examples": [{"a": 1, "b": ["c", "d"]}], "context": {"e": 0.5}}'],
    ("/v2/models/m/infer", ()): [INFER],
    ("/v2/models/m/infer", (("Inference_Header_Content_Length", str(len(BINARY))),)): [BINARY + ROWS.tobytes()],
    ("/graphpipe/m", ()): [infer_request([ROWS]), METADATA],
    ("/predictions/m", tuple(JSON_TYPE.items())): [b'{"instances": [[1, 2], [3, 4]]}', b'{"data": [1, 2]}'],
    ("/predictions/m", ()): [ROWS.tobytes(), b"\x89PNG\r\n\x1a\n and so on"],
    ("/", tuple(FORM.items())): [BODY],
    ("/images/m", tuple(FORM.items())): [BODY],
    ("/rows/m", ()): [b'[1, 2]\n{"x": [3, 4]}\n'],
}
SEEDS = [
    *(head("POST", path, len(body), **dict(told)) + body for (path, told), all_ in BODIES.items() for body in all_),
    head("GET", "/livez") + head("GET", "/readyz"),
    head("POST", "/images/m", len(BODY), **FORM) + BODY,
    head("POST", "/images/m?outputs=sum", Transfer_Encoding="chunked", **FORM) + chunked(BODY[:50], BODY[50:]),
    head("POST", "/v1/models/m:predict", 23) + b'{"instances": [[1, 2]]}',
    head("POST", "/rows/m?sync=0", Transfer_Encoding="chunked") + chunked(b"[1, 2]\n[3", b", 4]\n\n{}"),
    head("POST", "/rows/m", len(gzip.compress(b"[1, 2]\n")), Content_Encoding="gzip") + gzip.compress(b"[1, 2]\n"),
    head("POST", "/images/m", 3, Content_Type="image/png", Expect="100-continue") + b"abc",
]
WORDS = [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"--B", b"chunked", b"%", b"\xff", b"[", b'"']
WORDS += [b"Host: b\r\n", b"9" * 30]


def spoil(raw: bytes, chance: random.Random) -> bytes:
    """One to four changes: bytes changed, cut out, put in, doubled."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(1, 20))
        kind = chance.randrange(4)
        if kind == 0:
            data[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = chance.choice(WORDS)
        else:
            data[at:at] = data[at:end]
    return bytes(data)


@pytest.mark.parametrize("seed", range(20))
def test_spoilt_requests_leave_nothing_behind(seed):
    chance = random.Random(seed)
    with logged() as events:
        for _ in range(25):
            server = Server(Limits(body_bytes=2000, parts=4))
            server.pipeline.holding = chance.random() < 0.3
            client = server.connect(chance.choice([None, 100]))
            client.send(spoil(chance.choice(SEEDS), chance), step=chance.choice([1, 7, 100, 65536]))
            data = client.wire.take()
            for _ in range(20):
                server.pipeline.step_all()
                server.pool.step_all()
                while server.cache.syncs:
                    server.cache.syncs.pop()(None)
                server.wait(10)
                data += client.wire.take()
            rest = data
            while rest:
                assert rest.startswith(b"HTTP/1."), data
                reply = parse(rest)
                assert reply.status != 500, data
                assert "content-length" in reply.headers or reply.status in (100, 200, 204), data
                rest = reply.rest
            assert client.wire.lost
            assert not server.site.channels
            assert server.adds_up()
            assert server.clock.getDelayedCalls() == []
    assert events == []


def test_spoilt_bodies_leave_no_memory_behind():
    chance = random.Random(0)
    server = Server(Limits(body_bytes=2000, parts=4))
    requests = [(*asked, body) for asked, bodies in BODIES.items() for body in bodies]

    def some(count: int) -> int:
        """Sends so many; the bytes that are in use then."""
        for _ in range(count):
            path, told, body = chance.choice(requests)
            client = server.connect()
            spoilt = spoil(body, chance)
            client.send(head("POST", path, len(spoilt), **dict(told), Connection="close") + spoilt)
            server.pool.step_all()
            server.turns()
            assert parse(client.wire.take()).status != 500
            server.pipeline.seen.clear()
        server.wait(100)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = some(1000)
        assert some(1000) - before < 200_000
    finally:
        tracemalloc.stop()
