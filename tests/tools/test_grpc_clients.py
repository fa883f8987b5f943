"""The stubs of tensorflow-serving-api against a running server, and what a call's end does to its rows."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.signature import numpy_dtype
from tests.model_recipes import DTYPES, RECIPES, identity
from tests.tools.clients import client
from tests.tools.processes import END_SECONDS, REAL, arithmetic_model, started

tensorflow()
grpc = client("grpc")
for part in ("predict", "classification", "regression", "inference", "get_model_metadata", "get_model_status", "model"):
    client(f"tensorflow_serving.apis.{part}_pb2")
apis = client("tensorflow_serving").apis
prediction = client("tensorflow_serving.apis.prediction_service_pb2_grpc")
model_service = client("tensorflow_serving.apis.model_service_pb2_grpc")
management = client("tensorflow_serving.apis.model_management_pb2")
StatusCode = grpc.StatusCode

EVERY = [*DTYPES, "complex64", "complex128"]
MODELS = ["several_inputs", "two_outputs", "two_signatures", "static_input", "vocabulary", "fussy"]
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
WAIT = 60


@contextmanager
def doors(*arguments: str, program: str) -> Iterator[tuple[str, str]]:
    """A running server: its URL, and its gRPC address."""
    ports = ("--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    with started("serve", *ports, *arguments, program=program, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            found = re.search(r"on (http|grpc)://(\S+)", line.decode())
            if found and found[1] == "http":
                url = f"http://{found[2]}"
            elif found:
                yield url, found[2]
                process.terminate()
                _, rest = process.communicate(timeout=END_SECONDS)
                assert process.returncode == 0, rest
                assert b"Traceback" not in rest
                return
        raise AssertionError("the server did not start")


def save_judge(folder: Path) -> None:
    """inputs [N] string, Examples of n float32 -> `classify`: classes, scores [N,2]; `regress`: outputs [N]."""
    tf = tensorflow()
    module = tf.Module()
    spec = [tf.TensorSpec([None], tf.string, name="inputs")]

    def number(inputs: Any) -> Any:
        return tf.io.parse_example(inputs, {"n": tf.io.FixedLenFeature([], tf.float32)})["n"]

    def classify(inputs: Any) -> Any:
        n = number(inputs)
        classes = tf.tile([["no", "yes"]], [tf.shape(n)[0], 1])
        return {"classes": classes, "scores": tf.stack([-n, n], axis=1)}

    module.classify = tf.function(classify, input_signature=spec)
    module.regress = tf.function(lambda inputs: {"outputs": number(inputs) * 2}, input_signature=spec)
    tf.saved_model.save(module, str(folder), signatures={"classify": module.classify, "regress": module.regress})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    home = tmp_path_factory.mktemp("serving")
    for name in MODELS:
        RECIPES[name](home / "models" / name / "1")
    RECIPES["two_outputs"](home / "models" / "two_outputs" / "2")
    (home / "models" / "static_input" / "rowserve.toml").write_text('static_inputs = ["temperature"]\n')
    for dtype in EVERY:
        identity(home / "models" / f"identity_{dtype}" / "1", dtype)
    save_judge(home / "models" / "judge" / "1")
    limits = home / "rowserve.toml"
    limits.write_text('[limits]\nbody = "1MiB"\n')
    told = ("--models", str(home / "models"), "--cache", str(home / "cache"), "--config", str(limits))
    with doors(*told, program=REAL) as found:
        yield found


@pytest.fixture(scope="module")
def channel(served: tuple[str, str]) -> Iterator[Any]:
    with grpc.insecure_channel(served[1]) as found:
        yield found


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    return prediction.PredictionServiceStub(channel)


def tensor(value: Any, dtype: str | None = None) -> Any:
    tf = tensorflow()
    return tf.make_tensor_proto(value, dtype=None if dtype is None else tf.as_dtype(dtype))


def request(model: str, /, *outputs: str, signature: str = "", **inputs: Any) -> Any:
    asked = apis.predict_pb2.PredictRequest(output_filter=outputs)
    asked.model_spec.name = model
    asked.model_spec.signature_name = signature
    for name, value in inputs.items():
        asked.inputs[name].CopyFrom(value if hasattr(value, "tensor_shape") else tensor(value))
    return asked


def numbers(response: Any, name: str) -> Any:
    return tensorflow().make_ndarray(response.outputs[name])


def fails(call: Callable[[], Any]) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def cache_status(call: Any) -> str:
    return str(dict(call.trailing_metadata())["cache-status"]).removeprefix("rowserve; ")


def figures(url: str) -> dict[str, float]:
    """The metrics, by name and labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=WAIT) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def values(dtype: str) -> Any:
    if dtype == "string":
        return np.array([[b"a\0b", b"\xff\xfe"], [b"", "ä".encode()]], object)
    spec = numpy_dtype(dtype)
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if spec.kind in "iu":
        return np.array([[np.iinfo(spec).min, np.iinfo(spec).max], [0, 1]], spec)
    return np.array([[1.5, -0.0], [np.nan, -np.inf]], spec)


@pytest.mark.parametrize("dtype", EVERY)
def test_every_dtype_there_and_back(stub, dtype):
    x = values(dtype)
    response = stub.Predict(request(f"identity_{dtype}", x=tensor(x, dtype)), WAIT)
    y = np.asarray(numbers(response, "y"), x.dtype)
    assert y.shape == x.shape
    assert y.tolist() == x.tolist() if dtype == "string" else y.tobytes() == x.tobytes()
    assert not response.outputs["y"].tensor_content
    again = request(f"identity_{dtype}")
    again.inputs["x"].CopyFrom(response.outputs["y"])  # its typed values are taken as they were given
    _, call = stub.Predict.with_call(again, WAIT)
    assert cache_status(call) == "hit"


@pytest.mark.parametrize("dtype", ["float32", "string"])
def test_an_empty_batch(stub, dtype):
    response = stub.Predict(request(f"identity_{dtype}", x=tensor(values(dtype)[:0], dtype)), WAIT)
    assert numbers(response, "y").shape[0] == 0


def test_several_inputs_and_outputs_and_the_models_spec(stub):
    words = np.array([b"x", b"y\0"], object)
    asked = request("several_inputs", a=np.ones((2, 3), np.float32), b=np.array([1, 2]), c=words)
    response = stub.Predict(asked, WAIT)
    assert numbers(response, "total").tolist() == [4, 5]
    assert list(response.outputs["said"].string_val) == [b"x:1", b"y\0:2"]
    assert response.model_spec.name == "several_inputs"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_an_output_filter_a_signature_and_an_input_without_rows(stub):
    x = np.ones((1, 4), np.float32)
    assert list(stub.Predict(request("two_outputs", "best", x=x), WAIT).outputs) == ["best"]
    whole = numbers(stub.Predict(request("two_signatures", x=x), WAIT), "y")
    half = stub.Predict(request("two_signatures", signature="half", x=x), WAIT)
    assert np.allclose(numbers(half, "y") * 2, whole)
    assert half.model_spec.signature_name == "half"
    p = stub.Predict(request("static_input", x=np.ones((2, 3), np.float32), temperature=np.float32(2)), WAIT)
    assert np.allclose(numbers(p, "p"), 1 / 3)


def test_versions(stub):
    x = np.ones((1, 4), np.float32)
    asked = request("two_outputs", x=x)
    assert stub.Predict(asked, WAIT).model_spec.version.value == 2
    asked.model_spec.version.value = 1
    assert stub.Predict(asked, WAIT).model_spec.version.value == 1
    asked.model_spec.version.value = 50
    told = "Servable not found for request: Specific(two_outputs, 50)"
    assert fails(lambda: stub.Predict(asked, WAIT)) == (StatusCode.NOT_FOUND, told)
    asked.model_spec.version_label = "stable"
    told = "Unrecognized servable version label: stable"
    assert fails(lambda: stub.Predict(asked, WAIT)) == (StatusCode.INVALID_ARGUMENT, told)


ONE = np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (lambda: request("none", x=ONE), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (lambda: request("fussy", signature="s", x=ONE), "FAILED_PRECONDITION", 'Serving signature key "s" not found.'),
        (lambda: request("fussy", y=ONE), "INVALID_ARGUMENT", "input tensor alias not found in signature: y."),
        (lambda: request("fussy"), "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
        (lambda: request("fussy", "z", x=ONE), "INVALID_ARGUMENT", "output tensor alias not found in signature: z"),
        (lambda: request("fussy", x=ONE[:, :3]), "INVALID_ARGUMENT", "input 'x' takes the shape [-1, 4], not [1, 3]"),
        (lambda: request("fussy", x=ONE[0]), "INVALID_ARGUMENT", "input 'x' takes the shape [-1, 4], not [4]"),
        (lambda: request("fussy", x=ONE.astype(np.int32)), "INVALID_ARGUMENT", "input 'x' takes float32, not int32"),
        (lambda: request("fussy", x=ONE * 2000), "INVALID_ARGUMENT", "the model refused this row"),
        (lambda: request("", x=ONE), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (lambda: request("fussy", x=cut(ONE)), "INVALID_ARGUMENT", "tensor parsing error: x: shape [1, 4] of float32"),
        (lambda: request("fussy", x=huge()), "RESOURCE_EXHAUSTED", "tensor parsing error: x: the tensor's shape cl"),
        (lambda: request("fussy", x=np.ones((1 << 17, 4), np.float32)), "RESOURCE_EXHAUSTED", "SERVER: Received mess"),
    ],
)
def test_a_request_that_fails_says_why(stub, asked, code, told):
    found, words = fails(lambda: stub.Predict(asked(), WAIT))
    assert found is StatusCode[code]
    assert words.startswith(told)


def cut(array: Any) -> Any:
    made = tensor(array)
    made.tensor_content = made.tensor_content[:-1]
    return made


def huge() -> Any:
    made = tensor(np.float32(1))
    made.tensor_shape.dim.add().size = 10**12
    return made


def test_partial_hits_and_cache_control(stub, served):
    x = np.arange(12, dtype=np.float32).reshape(3, 4) / 7

    def status(rows: Any, control: str = "") -> str:
        metadata = [("cache-control", control)] if control else []
        return cache_status(stub.Predict.with_call(request("two_outputs", x=rows), WAIT, metadata=metadata)[1])

    assert status(x[:2]) == 'fwd=miss; detail="computed=2"'
    assert status(x) == 'fwd=partial; detail="hit=2 computed=1"'
    assert status(x[::-1]) == "hit"
    assert status(x, "no-cache").startswith("fwd=request")
    assert status(x, "no-store").startswith("fwd=bypass")
    assert status(x, "only-if-cached") == "hit"
    code, told = fails(lambda: status(x + 1, "only-if-cached"))
    assert (code, told) == (StatusCode.DEADLINE_EXCEEDED, "3 rows are not in the cache")
    found = figures(served[0])
    assert found['rowserve_rows_asked_total{model="two_outputs",protocol="tensorflow_serving_grpc",version="2"}'] >= 17
    assert found['rowserve_request_seconds_count{code="OK",route="/tensorflow.serving.PredictionService/Predict"}'] >= 6


def examples(*given: float) -> Any:
    tf = tensorflow()
    made = apis.input_pb2.Input()
    for number in given:
        value = tf.train.Feature(float_list=tf.train.FloatList(value=[number]))
        made.example_list.examples.add().CopyFrom(tf.train.Example(features=tf.train.Features(feature={"n": value})))
    return made


def test_classify_regress_and_both(stub):
    asked = apis.classification_pb2.ClassificationRequest(input=examples(0.5, -2))
    asked.model_spec.name, asked.model_spec.signature_name = "judge", "classify"
    response = stub.Classify(asked, WAIT)
    told = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert told == [[("no", -0.5), ("yes", 0.5)], [("no", 2.0), ("yes", -2.0)]]
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "classify")

    asked = apis.regression_pb2.RegressionRequest(input=examples(1.5))
    asked.model_spec.name, asked.model_spec.signature_name = "judge", "regress"
    assert [row.value for row in stub.Regress(asked, WAIT).result.regressions] == [3.0]

    asked = apis.inference_pb2.MultiInferenceRequest(input=examples(4, 5))
    for signature, method in (("regress", REGRESS), ("classify", CLASSIFY)):
        task = asked.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = "judge", signature
    one, two = stub.MultiInference(asked, WAIT).results
    assert [row.value for row in one.regression_result.regressions] == [8.0, 10.0]
    assert two.classification_result.classifications[1].classes[1].score == 5.0


def test_a_context_reaches_every_example(stub):
    asked = apis.regression_pb2.RegressionRequest()
    asked.model_spec.name, asked.model_spec.signature_name = "judge", "regress"
    given = asked.input.example_list_with_context
    given.context.CopyFrom(examples(7).example_list.examples[0])
    given.examples.add()
    given.examples.add()
    assert [row.value for row in stub.Regress(asked, WAIT).result.regressions] == [14.0, 14.0]


def test_examples_that_are_none_are_an_answer(stub):
    asked = apis.regression_pb2.RegressionRequest()
    asked.model_spec.name, asked.model_spec.signature_name = "judge", "regress"
    assert fails(lambda: stub.Regress(asked, WAIT)) == (StatusCode.INVALID_ARGUMENT, "Input is empty.")
    asked.input.example_list.examples.add()
    code, told = fails(lambda: stub.Regress(asked, WAIT))
    assert code is StatusCode.INVALID_ARGUMENT
    assert told.startswith("the model refused this row")


def test_metadata_and_status(stub, channel):
    asked = apis.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "two_signatures"
    response = stub.GetModelMetadata(asked, WAIT)
    told = apis.get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(told)
    assert {"serving_default", "half"} <= set(told.signature_def)
    x = told.signature_def["half"].inputs["x"]
    assert (x.dtype, [dim.size for dim in x.tensor_shape.dim]) == (1, [-1, 4])

    states = model_service.ModelServiceStub(channel)
    asked = apis.get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "two_outputs"
    told = states.GetModelStatus(asked, WAIT).model_version_status
    assert [(each.version, each.state, each.status.error_code) for each in told] == [(2, 30, 0), (1, 30, 0)]
    asked.model_spec.name = "none"
    told = "Could not find any versions of model none"
    assert fails(lambda: states.GetModelStatus(asked, WAIT)) == (StatusCode.NOT_FOUND, told)
    reload = management.ReloadConfigRequest()
    assert fails(lambda: states.HandleReloadConfigRequest(reload, WAIT))[0] is StatusCode.UNIMPLEMENTED


def test_health(channel):
    health_pb2, health_grpc = client("grpc_health.v1.health_pb2"), client("grpc_health.v1.health_pb2_grpc")
    health = health_grpc.HealthStub(channel)
    for name in ("", "tensorflow.serving.PredictionService", "inference.GRPCInferenceService", "fussy"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name), WAIT).status == 1
    assert fails(lambda: health.Check(health_pb2.HealthCheckRequest(service="x"), WAIT))[0] is StatusCode.NOT_FOUND
    watched = health.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    assert fails(lambda: next(watched))[0] is StatusCode.UNIMPLEMENTED


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: while it is there, the graph stands still."""
    file = tmp_path / "gate"
    file.touch()
    monkeypatch.setenv("ROWSERVE_TEST_GATE", str(file))
    return file


def until(url: str, name: str, value: float) -> None:
    """Asks for the metrics until those that begin so add up to the value. The test's own deadline ends it."""
    while sum(figure for found, figure in figures(url).items() if found.startswith(name)) != value:
        time.sleep(0.01)


# By the deadline that the server keeps, or by that of the client, whose news of it may come first.
FAILED = "rowserve_rows_failed_total{"


def test_rows_leave_with_their_call_while_the_graph_is_busy(tmp_path, gate):
    model = f"m={arithmetic_model(tmp_path / 'm')}"
    with doors("--model", model, "--cache", str(tmp_path / "cache"), program="tests.tools.gated_rowserve") as found:
        url, address = found
        with grpc.insecure_channel(address) as channel:
            stub = prediction.PredictionServiceStub(channel)
            running = stub.Predict.future(request("m", x=ONE), WAIT)
            until(url, "rowserve_queue_rows", 0)
            until(url, 'rowserve_rows_pending{model="m",protocol="tensorflow_serving_grpc",version="1"}', 1)
            code, _ = fails(lambda: stub.Predict(request("m", x=ONE * 2), 0.3))
            assert code is StatusCode.DEADLINE_EXCEEDED
            until(url, FAILED, 1)
            waiting = stub.Predict.future(request("m", x=ONE * 3), WAIT)
            until(url, "rowserve_queue_rows", 1)
            waiting.cancel()
            until(url, FAILED, 2)
            assert figures(url)["rowserve_queue_rows"] == 0
            assert not running.done()
            gate.unlink()
            assert numbers(running.result(), "double").tolist() == [[2, 2, 2, 2]]
            assert sum(v for k, v in figures(url).items() if k.startswith("rowserve_rows_total{")) == 3


def test_a_stop_finishes_what_runs_and_refuses_what_comes(tmp_path, gate):
    model = f"m={arithmetic_model(tmp_path / 'm')}"
    ports = ("--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--model", model, "--cache", str(tmp_path / "cache"))
    with started("serve", *ports, program="tests.tools.gated_rowserve", stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        lines = (line.decode() for line in iter(process.stderr.readline, b""))
        url, address = islice((line.split(" on ")[1].strip() for line in lines if " on " in line), 2)
        with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
            stub = prediction.PredictionServiceStub(channel)
            running = stub.Predict.future(request("m", x=ONE), WAIT)
            until(url, 'rowserve_rows_pending{model="m",protocol="tensorflow_serving_grpc",version="1"}', 1)
            process.terminate()
            while True:  # until the server has heard of it
                with grpc.insecure_channel(address.removeprefix("grpc://")) as late:
                    try:
                        late.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
                    except grpc.RpcError as error:
                        if error.code() is StatusCode.UNAVAILABLE:
                            break
            gate.unlink()
            assert numbers(running.result(), "double").tolist() == [[2, 2, 2, 2]]
        assert process.wait(END_SECONDS) == 0
