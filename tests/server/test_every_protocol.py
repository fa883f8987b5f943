"""What every protocol that carries rows keeps: partial hits, twins, Cache-Control, deadlines, its own counts, and the
elements of an output of one string a row, beside other outputs."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from rowserve.handlers.items import Options
from rowserve.handlers.native_rows import read_wants
from rowserve.handlers.ndjson import LineReader, encode_lines
from rowserve.handlers.tensor_protos import Budget, read_tensor, tensor_parts
from rowserve.handlers.tensorflow_messages import PredictRequest, PredictResponse, TensorProto
from rowserve.server.listener import ApiSite
from rowserve.server.open_inference_grpc import OpenInference
from rowserve.server.tensorflow_serving_grpc import TensorFlowServing
from tests.doubles import number_rows, worded_signature
from tests.handlers.graphpipe_requests import answered, infer_request
from tests.http_doubles import FORM, Client, Reply, form
from tests.server.test_http_pipeline import RealServer


@dataclass(frozen=True)
class Protocol:
    """How rows are asked for; `label` is its name in the metrics."""

    label: str
    path: str
    body: Callable[[Any], bytes]
    headers: Callable[[Any], dict[str, str]] = lambda rows: {}
    profile: str = "native"


def instances(rows: Any) -> bytes:
    return json.dumps({"instances": rows.tolist()}).encode()


def columns(rows: Any) -> bytes:
    return json.dumps({"inputs": rows.tolist()}).encode()


def lines(rows: Any) -> bytes:
    return b"".join(b"%b\n" % json.dumps(row).encode() for row in rows.tolist())


def tensor(rows: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": rows.shape, "datatype": "FP32", **more}]}).encode()


def binary_head(rows: Any) -> bytes:
    plain = json.loads(tensor(rows, parameters={"binary_data_size": rows.nbytes}))
    return json.dumps({**plain, "parameters": {"binary_data_output": True}}).encode()


PROTOCOLS = {
    "TensorFlow Serving, rows": Protocol("tensorflow_serving", "/v1/models/m:predict", instances),
    "TensorFlow Serving, columns": Protocol("tensorflow_serving", "/v1/models/m:predict", columns),
    "Open Inference, JSON": Protocol(
        "open_inference", "/v2/models/m/infer", lambda rows: tensor(rows, data=rows.ravel().tolist())
    ),
    "Open Inference, binary": Protocol(
        "open_inference",
        "/v2/models/m/infer",
        lambda rows: binary_head(rows) + rows.tobytes(),
        lambda rows: {"Inference-Header-Content-Length": str(len(binary_head(rows)))},
    ),
    "GraphPipe": Protocol("graphpipe", "/graphpipe/m", lambda rows: infer_request([rows])),
    "KServe": Protocol("kserve", "/v1/models/m:predict", instances, profile="kserve"),
    "TorchServe": Protocol(
        "torchserve", "/predictions/m", instances, lambda rows: {"Content-Type": "application/json"}
    ),
    "native": Protocol("rows", "/rows/m", lines),
}
every_protocol = pytest.mark.parametrize("name", PROTOCOLS)
whole_answers = pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "native"])  # that one has lines


def ask(server: RealServer, name: str, *numbers: float, **headers: str) -> Client:
    """Asks for rows of these numbers, on a connection of its own."""
    protocol = PROTOCOLS[name]
    rows = np.repeat(np.array(numbers, np.float32)[:, None], 4, axis=1)
    body = protocol.body(rows)
    told = {"Host": "h", "Content-Length": str(len(body)), **protocol.headers(rows), **headers}
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in told.items())
    server.site = ApiSite(server.api, protocol.profile)
    client = server.connect()
    client.send(f"POST {protocol.path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    return client


def counted(server: RealServer, name: str, outcome: str) -> float:
    label = PROTOCOLS[name].label
    figure = 'rowserve_rows_total{model="m",outcome="%s",protocol="%s",version="1"}'
    return server.figures().get(figure % (outcome, label), 0)


def settle(server: RealServer) -> None:
    server.bench.run()
    server.turns()


@every_protocol
def test_a_partial_hit_runs_only_what_is_missing(name):
    server = RealServer()
    ask(server, name, 1, 2)
    settle(server)
    client = ask(server, name, 1, 3, 2)
    settle(server)
    assert server.bench.session.seen == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    reply = client.reply()
    assert reply.status == 200
    assert reply.headers["cache-status"] == 'rowserve; fwd=partial; detail="hit=2 computed=1"'
    assert (counted(server, name, "hit"), counted(server, name, "computed")) == (2, 3)
    assert server.adds_up()


@every_protocol
def test_a_row_is_the_same_row_by_every_other_protocol(name):
    server = RealServer()
    ask(server, name, 5)
    settle(server)
    for other in PROTOCOLS:
        assert ask(server, other, 5).reply().headers["cache-status"] == "rowserve; hit"
    assert server.bench.session.seen == [[5.0] * 4]


@every_protocol
def test_twins_run_once(name):
    server = RealServer()
    ask(server, name, 0)
    clients = [ask(server, name, 7) for _ in range(5)]
    settle(server)
    assert [client.reply().status for client in clients] == [200] * 5
    assert server.bench.session.seen == [[0.0] * 4, [7.0] * 4]
    assert (counted(server, name, "computed"), counted(server, name, "collapsed")) == (2, 4)


@whole_answers
def test_only_if_cached_never_touches_the_graph(name):
    server = RealServer()
    assert ask(server, name, 1, Cache_Control="only-if-cached").reply().status == 504
    assert not server.bench.graph.inbox
    assert server.adds_up()


@every_protocol
def test_no_store_goes_past_the_cache(name):
    server = RealServer()
    for _ in range(2):
        ask(server, name, 1, Cache_Control="no-store")
        settle(server)
    assert server.bench.session.seen == [[1.0] * 4] * 2
    assert counted(server, name, "bypassed") == 2


@whole_answers
def test_a_deadline_is_kept_while_the_graph_is_busy_and_the_row_leaves_the_queue(name):
    server = RealServer()
    ask(server, name, 0)
    client = ask(server, name, 1, Request_Timeout="1")
    server.clock.advance(0.9)
    assert server.bench.model.batcher.rows == 1
    server.clock.advance(0.2)
    assert client.reply().status == 504
    assert server.bench.model.batcher.rows == 0
    settle(server)
    assert server.bench.session.seen == [[0.0] * 4]
    assert server.adds_up()


@every_protocol
def test_who_hangs_up_leaves_the_queue(name):
    server = RealServer()
    ask(server, name, 0)
    ask(server, name, 1).hang_up()
    settle(server)
    assert server.bench.session.seen == [[0.0] * 4]
    assert server.adds_up()


def test_open_inferences_own_timeout_is_a_deadline():
    server = RealServer()
    ask(server, "Open Inference, JSON", 0)
    asked = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    body = json.dumps({"inputs": [asked], "parameters": {"timeout": 1_000_000}}).encode()
    client = server.connect()
    client.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    server.clock.advance(1.1)
    reply = client.reply()
    assert reply.status == 504
    assert list(reply.json) == ["error"]


triton: Any = service_pb2
ALONE = pytest.mark.parametrize("alone", ["", "it has an output without a leading dimension"])
# What is read out of an answer of every form: the `sum` and the `word` of each row.
Pairs = list[tuple[int, str]]


def of_rows(rows: Any) -> Pairs:
    return [(row["sum"], row["word"]) for row in rows]


def of_columns(told: Any) -> Pairs:
    return list(zip(told["sum"], told["word"], strict=True))


def of_tensors(told: Any, blobs: bytes) -> Pairs:
    """Outputs of the Open Inference Protocol: as JSON, or as bytes one after another."""
    found: dict[str, list[Any]] = {}
    for output in told:
        if "data" in output:
            found[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = elements(output["datatype"], blobs[:size])
        blobs = blobs[size:]
    return of_columns(found)


def elements(datatype: str, blob: bytes) -> list[Any]:
    """A tensor's elements out of its bytes."""
    if datatype != "BYTES":
        return list(np.frombuffer(blob, {"FP32": "<f4", "INT64": "<i8"}[datatype]).tolist())
    found = []
    while blob:
        (size,) = struct.unpack_from("<I", blob)
        found.append(blob[4 : 4 + size].decode())
        blob = blob[4 + size :]
    return found


def of_binary(reply: Reply) -> Pairs:
    length = int(reply.headers["inference-header-content-length"])
    return of_tensors(json.loads(reply.body[:length])["outputs"], reply.body[length:])


def of_graphpipe(reply: Reply) -> Pairs:
    _, sums, words = answered(reply.body)
    return list(zip(sums.tolist(), [word.decode() for word in words], strict=True))


READ: dict[str, Callable[[Reply], Pairs]] = {
    "TensorFlow Serving, rows": lambda reply: of_rows(reply.json["predictions"]),
    "TensorFlow Serving, columns": lambda reply: of_columns(reply.json["outputs"]),
    "Open Inference, JSON": lambda reply: of_tensors(reply.json["outputs"], b""),
    "Open Inference, binary": of_binary,
    "GraphPipe": of_graphpipe,
    "KServe": lambda reply: of_rows(reply.json["predictions"]),
    "TorchServe": lambda reply: of_rows(reply.json if isinstance(reply.json, list) else [reply.json]),
    "native": lambda reply: of_rows(line["outputs"] for line in reply.lines),
}
WANTED: Pairs = [(4, "4"), (8, "8")]


def worded(alone: str) -> RealServer:
    return RealServer(worded_signature(alone=alone))


@ALONE
@every_protocol
def test_an_output_of_one_string_a_row_beside_others(name, alone):
    for numbers in ((1.0,), (1.0, 2.0)):
        server = worded(alone)
        client = ask(server, name, *numbers)
        settle(server)
        reply = client.reply()
        assert reply.status == 200, reply.body
        assert READ[name](reply) == WANTED[: len(numbers)]


@ALONE
def test_the_same_of_pictures(alone):
    for uploads in ((b"1",), (b"1", b"2")):
        server = worded(alone)
        client = server.connect()
        body = form(*uploads)
        lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in FORM.items())
        client.send(f"POST /images/m HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        settle(server)
        rows = client.reply().json["rows"]
        assert of_rows(row["outputs"] for row in rows) == WANTED[: len(uploads)]


@ALONE
def test_the_same_of_lines_as_infer_writes_them(alone):
    server = worded(alone)
    face, signature = server.bench.model.face, server.bench.signature
    items: Any = LineReader(face, signature).read([b"[1,1,1,1]", b"[2,2,2,2]"])
    answer = server.bench.answer(*items).answer
    assert answer is not None
    told = encode_lines(face, answer, read_wants(face, signature, "", ""), 1).splitlines()
    assert of_rows(json.loads(line)["outputs"] for line in told) == WANTED


def over_grpc(server: RealServer, asked: Any) -> bytes:
    """The message of an answer."""
    pipeline, question = server.bench.pipeline, asked.question
    pending: Any = pipeline.answer(asked.served, question.signature, question.items, Options("grpc"))
    settle(server)
    return bytes(question.encode(pending.result))


@ALONE
def test_the_same_over_grpc(alone):
    rows = number_rows(1, 2).arrays["x"]
    server = worded(alone)
    tensor = TensorProto.FromString(b"".join(tensor_parts(rows)))
    message = PredictRequest(model_spec={"name": "m"}, inputs={"x": tensor}).SerializeToString()
    told = over_grpc(server, TensorFlowServing(server.models, 1 << 20).predict(message, {}))
    outputs = PredictResponse.FromString(told).outputs
    arrays = {name: read_tensor(memoryview(outputs[name].SerializeToString()), Budget(1 << 20)) for name in outputs}
    assert list(zip(arrays["sum"].tolist(), [w.decode() for w in arrays["word"]], strict=True)) == WANTED

    server = worded(alone)
    given = {"name": "x", "datatype": "FP32", "shape": rows.shape, "contents": {"fp32_contents": rows.ravel().tolist()}}
    message = triton.ModelInferRequest(model_name="m", inputs=[given]).SerializeToString()
    told = over_grpc(server, OpenInference(server.models, server.metrics).infer(message, {}))
    response = triton.ModelInferResponse.FromString(told)
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    assert of_columns({output.name: elements(output.datatype, raw) for output, raw in pairs}) == WANTED
