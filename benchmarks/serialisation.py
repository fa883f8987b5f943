"""The race that GraphPipe became known for, on its own work: 128 x 224 x 224 x 3 float32 in, 128 x 7 x 7 x 512 out.

First the server's two halves alone, decoding the request and encoding the answer, in this process: the binary formats
against one memcpy of the numbers, JSON against the standard library's and numpy. Then rows a second end to end: a real
server, the body limit raised by its setting, a model that costs next to nothing (it cuts the picture down), nothing
cached, and clients in a process of their own that have their requests ready.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import simdjson
from flatbuffers import Builder

from benchmarks.served import Client, Served
from benchmarks.table import Figure, emit, in_turns, number, timed
from rowserve.graphs.rows import Array, RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import graphpipe, open_inference, tensorflow_serving, tensorflow_serving_grpc
from rowserve.handlers.items import Answer, ModelFace, Options, Outcome
from rowserve.handlers.json_pieces import PIECE
from rowserve.handlers.tensorflow_messages import PredictRequest

PICTURE, FEATURES = (224, 224, 3), (7, 7, 512)
NAME = "pooled"
SIGNATURE = Signature(
    "serving_default", (TensorSpec("x", "float32", PICTURE),), (TensorSpec("y", "float32", FEATURES),)
)
FACE = ModelFace(NAME, 1, {SIGNATURE.name: SIGNATURE})
LENGTH = "Inference-Header-Content-Length"
DT_FLOAT = 1
ROOM = 1 << 30


# Requests, as the clients send them


def graphpipe_request(x: Array) -> bytes:
    """An InferRequest of one tensor."""
    builder = Builder(x.nbytes + 1024)
    data = builder.CreateNumpyVector(x.reshape(-1).view(np.uint8))
    builder.StartVector(8, x.ndim, 8)
    for size in reversed(x.shape):
        builder.PrependInt64(size)
    shape = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUint8Slot(0, 10, 0)
    builder.PrependUOffsetTRelativeSlot(1, shape, 0)
    builder.PrependUOffsetTRelativeSlot(2, data, 0)
    tensor = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(2, tensors, 0)
    inference = builder.EndObject()
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, inference, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def binary_request(x: Array) -> tuple[bytes, dict[str, str]]:
    """Open Inference: the JSON and the tensor behind it, and the header that says how long the first is."""
    parameters = {"binary_data_size": x.nbytes}
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "parameters": parameters}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return head + x.tobytes(), {LENGTH: str(len(head))}


def protobuf_request(x: Array) -> bytes:
    """TensorFlow Serving's PredictRequest, with the numbers as tensor_content."""
    request = PredictRequest()
    request.model_spec.name = NAME
    tensor = request.inputs["x"]
    tensor.dtype = DT_FLOAT
    for size in x.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = x.tobytes()
    return request.SerializeToString()


def rows_json(x: Array) -> bytes:
    """TensorFlow Serving's row form."""
    return b'{"instances":%b}' % orjson.dumps(x, option=orjson.OPT_SERIALIZE_NUMPY)


def tensor_json(x: Array) -> bytes:
    """Open Inference without binary data: one flat list."""
    head = orjson.dumps({"name": "x", "datatype": "FP32", "shape": list(x.shape)})[:-1]
    return b'{"inputs":[%b,"data":%b}]}' % (head, orjson.dumps(x.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY))


# The server's halves, alone

Decode = Callable[[], Any]


def decoders(x: Array) -> Mapping[str, Decode]:
    """How each binary format is read, from a body as the server holds it."""
    binary, headers = binary_request(x)
    low = {name.lower(): value for name, value in headers.items()}
    flat, proto = memoryview(graphpipe_request(x)), protobuf_request(x)

    def protobuf() -> Any:
        return tensorflow_serving_grpc.predict_question(
            FACE, tensorflow_serving_grpc.read_predict(proto), Options(), ROOM
        )

    return {
        "GraphPipe": lambda: graphpipe.read_request(FACE, {}, flat),
        "Open Inference binary": partial(open_inference.read_infer, FACE, low, memoryview(binary)),
        "TensorFlow Serving protobuf": protobuf,
    }


def memcpy(array: Array) -> Callable[[], None]:
    """Copies the array to memory that is there already."""
    target, source = np.zeros_like(array), array
    return lambda: np.copyto(target, source)


def seconds(call: Callable[[], Any], repeat: int) -> Callable[[], float]:
    """Seconds of one call, the mean of a few."""

    def go() -> None:
        for _ in range(repeat):
            call()

    return lambda: timed(go) / repeat


def decoding(x: Array, turns: int) -> Iterator[Figure]:
    """Each binary format against memcpy, each JSON against the standard library."""
    size = f"{number(x.nbytes / 1e6)} MB of float32"
    for name, decode in decoders(x).items():
        (rows,) = decode().items
        assert np.array_equal(rows.arrays["x"], x), name
        pair = in_turns(seconds(decode, 3), seconds(memcpy(x), 3), turns)
        yield Figure(f"{name}: decoding {size}, against one memcpy", pair.ratio, "x", 1.3, pair.detail(1e3, "ms"))
    parser = f"the parser alone {number(parser_alone(x) * 1e3)} ms"
    for name, body, decode, plain in (
        ("TensorFlow Serving JSON", rows_json(x), read_rows, lambda text: json.loads(text)["instances"]),
        ("Open Inference JSON", tensor_json(x), read_tensor, lambda text: json.loads(text)["inputs"][0]["data"]),
    ):
        (rows,) = decode(body).items
        assert np.array_equal(rows.arrays["x"], x), name
        ours, stdlib = partial(decode, body), partial(standard_decode, plain, body)
        pair = in_turns(partial(timed, stdlib), partial(timed, ours), max(1, turns // 4))
        told = f"{number(pair.bare * 1e3)} ms against {number(pair.ours * 1e3)} ms, of {number(len(body) / 1e6)} MB"
        what = f"{name}: decoding {size}, times as fast as stdlib json + numpy"
        yield Figure(what, pair.ratio, "x", 8.0, f"{told}; {parser}", at_least=True)


def parser_alone(x: Array) -> float:
    """Seconds that simdjson takes for the numbers as one flat list, a piece at a time, with nothing around it."""
    text = orjson.dumps(x.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    pieces = []
    at = 0
    while at < len(text):
        end = len(text) if len(text) - at <= PIECE else text.rindex(b",", at, at + PIECE)
        pieces.append(b"[%b]" % text[at:end])
        at = end + 1
    parser: Any = simdjson.Parser()

    def go() -> None:
        for piece in pieces:
            parser.parse(piece).as_buffer(of_type="d")

    return min(timed(go) for _ in range(3))


def read_rows(body: bytes) -> Any:
    """Our JSON, TensorFlow Serving's form."""
    return tensorflow_serving.read_predict(FACE, memoryview(body))


def read_tensor(body: bytes) -> Any:
    """Our JSON, Open Inference's form."""
    return open_inference.read_infer(FACE, {}, memoryview(body))


def standard_decode(plain: Callable[[bytes], Any], body: bytes) -> Array:
    """The standard library, and numpy."""
    return np.array(plain(body), np.float32)


def encoding(x: Array, y: Array, turns: int) -> Iterator[Figure]:
    """The answer in each format: binary against memcpy, JSON against the standard library."""
    layout = RowLayout(SIGNATURE.outputs)
    packed = [bytes(row) for row in layout.pack({"y": y}, len(y))]
    answer = Answer(layout, [*packed], [Outcome.COMPUTED] * len(y))
    size = f"{number(y.nbytes / 1e6)} MB of float32"
    for name, decode in decoders(x[:1]).items():
        encode = partial(decode().encode, answer)
        pair = in_turns(seconds(encode, 3), seconds(memcpy(y), 3), turns)
        yield Figure(f"{name}: encoding {size}, against one memcpy", pair.ratio, "x", None, pair.detail(1e3, "ms"))
    asked = read_rows(rows_json(x[:1]))
    ours = partial(tensorflow_serving.encode_predict, asked, answer)
    pair = in_turns(partial(timed, partial(standard_encode, answer)), partial(timed, ours), max(1, turns // 4))
    told = f"{number(pair.bare * 1e3)} ms against {number(pair.ours * 1e3)} ms"
    what = f"TensorFlow Serving JSON: encoding {size}, times as fast as numpy + stdlib json"
    yield Figure(what, pair.ratio, "x", None, told, at_least=True)


def standard_encode(answer: Answer) -> bytes:
    """numpy, and the standard library."""
    return json.dumps({"predictions": answer.stacked()["y"].tolist()}).encode()


# End to end


def save_model(folder: Path) -> None:
    """x [N,224,224,3] -> y [N,7,7,512]: the first numbers of each picture."""
    import tensorflow as tf

    features = int(np.prod(FEATURES))

    def call(x: Any) -> dict[str, Any]:
        return {"y": tf.reshape(tf.reshape(x, [-1, int(np.prod(PICTURE))])[:, :features], [-1, *FEATURES])}

    module = tf.Module()
    module.serve = tf.function(call, input_signature=[tf.TensorSpec([None, *PICTURE], tf.float32, name="x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def post_all(port: int, protocol: str, rows: int, connections: int, each: int) -> float:
    """In the clients' process: rows a second of `each` requests on every connection."""
    x = np.random.default_rng(0).random((rows, *PICTURE), np.float32)
    headers: dict[str, str] = {}
    if protocol == "GraphPipe":
        path, body = f"/graphpipe/{NAME}", graphpipe_request(x)
    elif protocol == "Open Inference binary":
        path = f"/v2/models/{NAME}/infer"
        body, headers = binary_request(x)
    else:
        path, body = f"/v1/models/{NAME}:predict", rows_json(x)

    def post(client: Client) -> None:
        for _ in range(each):
            client.request("POST", path, body, headers)
            response = client.getresponse()
            answer = response.read()
            assert response.status == 200, answer[:500]
            assert len(answer) > rows * int(np.prod(FEATURES)) * 4, len(answer)

    with ThreadPoolExecutor(connections) as threads:
        began = time.perf_counter()
        for done in [threads.submit(post, Client(port)) for _ in range(connections)]:
            done.result()
        return connections * each * rows / (time.perf_counter() - began)


def end_to_end(rows: int, turns: int) -> Iterator[Figure]:
    """Rows a second by protocol, at 1 and 5 connections."""
    protocols = ("TensorFlow Serving JSON", "Open Inference binary", "GraphPipe")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as clients:
        save_model(Path(folder, "models", NAME, "1"))
        Path(folder, "rowserve.toml").write_text('[limits]\nbody = "1GiB"\nqueue_bytes = "1GiB"\n', encoding="utf-8")
        arguments = ("--models", f"{folder}/models", "--config", f"{folder}/rowserve.toml", "--no-cache")
        with Served(*arguments) as server:
            for connections in (1, 5):
                found: dict[str, list[float]] = {protocol: [] for protocol in protocols}
                for _ in range(turns):
                    for protocol in protocols:
                        each = 1 if "JSON" in protocol else 4
                        asked = clients.submit(post_all, server.port, protocol, rows, connections, each)
                        found[protocol].append(asked.result())
                for protocol, rates in found.items():
                    told = f"requests of {rows} rows, nothing cached, clients on the same cores"
                    what = f"{protocol}: rows/s end to end, {connections} connection{'s' * (connections > 1)}"
                    yield Figure(what, statistics.median(rates), " rows/s", None, told, at_least=True)


def figures(quick: bool) -> Iterator[Figure]:
    """All of them."""
    rows, turns = (8, 2) if quick else (128, 15)
    random = np.random.default_rng(0)
    x, y = random.random((rows, *PICTURE), np.float32), random.random((rows, *FEATURES), np.float32)
    yield from decoding(x, turns)
    yield from encoding(x, y, turns)
    yield from end_to_end(rows, 1 if quick else 3)


if __name__ == "__main__":
    emit(figures)
