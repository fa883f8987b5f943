"""Triton's own Python clients against a running server: HTTP (plain and asyncio) and gRPC."""

from __future__ import annotations

import asyncio
import queue
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from rowserve.graphs.signature import numpy_dtype
from rowserve.handlers.open_inference_datatypes import NAMES
from tests.model_recipes import RECIPES
from tests.tools.digits_server import digits_server
from tests.tools.processes import arithmetic_model, started

DTYPES = sorted(set(NAMES) - {"string"})
MODELS = [
    *(f"identity_{dtype}" for dtype in (*DTYPES, "string")),
    "several_inputs",
    "two_outputs",
    "fussy",
    "static_input",
    "no_row_input",
    "mean_of_batch",
    "fixed_eight",
    "no_default",
]
LABELS = "ant\nbee\ncow\n"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A server of all MODELS: HOST:PORT of HTTP, and of gRPC."""
    home = tmp_path_factory.mktemp("triton")
    for name in MODELS:
        RECIPES[name](home / "models" / name / "1")
    extra = home / "models" / "two_outputs" / "1" / "assets.extra"
    extra.mkdir()
    (extra / "labels.txt").write_text(LABELS, encoding="utf-8")
    with digits_server(home / "models", "native", grpc=True) as (url, lane):
        yield [url.removeprefix("http://"), lane]


@pytest.fixture
def address(doors: list[str]) -> str:
    return doors[0]


@pytest.fixture
def remote(doors: list[str]) -> Iterator[Any]:
    made = triton_grpc.InferenceServerClient(doors[1])
    yield made
    made.close()


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    made = triton.InferenceServerClient(address)
    yield made
    made.close()


def given(name: str, array: Any, module: Any = triton, **how: Any) -> Any:
    """An input with its data."""
    dtype = "string" if array.dtype == object else array.dtype.name
    made = module.InferInput(name, list(array.shape), NAMES[dtype])
    made.set_data_from_numpy(array, **how)
    return made


def wanted(name: str, module: Any = triton, **how: Any) -> Any:
    return module.InferRequestedOutput(name, **how)


def values(dtype: str) -> Any:
    spec = numpy_dtype(dtype)
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if spec.kind in "iu":
        return np.array([[np.iinfo(spec).min, np.iinfo(spec).max], [0, 1]], spec)
    return np.array([[1.5, -0.0], [np.nan, -np.inf]], spec)


def fails(call: Any) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_as_bytes(client, dtype):
    x = values(dtype)
    result = client.infer(f"identity_{dtype}", [given("x", x)])
    y = result.as_numpy("y")
    assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, x.shape, x.tobytes())
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"float16", "bfloat16"}))
def test_every_dtype_that_json_can_hold_as_json(client, dtype):
    x = values(dtype)
    result = client.infer(
        f"identity_{dtype}", [given("x", x, binary_data=False)], outputs=[wanted("y", binary_data=False)]
    )
    assert "data" in result.get_output("y")
    assert result.as_numpy("y").tobytes() == x.tobytes()


def test_half_precision_is_bytes_only(client):
    for dtype, name in (("float16", "FP16"), ("bfloat16", "BF16")):
        x = given("x", values(dtype))
        error = fails(
            lambda x=x, dtype=dtype: client.infer(f"identity_{dtype}", [x], outputs=[wanted("y", binary_data=False)])
        )
        assert error.status() == "400"
        assert f"sending {name} data via JSON is not supported" in error.message()


def test_strings_with_any_bytes(client):
    x = np.array([[b"\0\xff", b""], [b"a" * 1000, "ä".encode()]], dtype=object)
    assert client.infer("identity_string", [given("x", x)]).as_numpy("y").tolist() == x.tolist()
    plain = np.array([["one", "ä"]], dtype=object)
    result = client.infer(
        "identity_string", [given("x", plain, binary_data=False)], outputs=[wanted("y", binary_data=False)]
    )
    assert result.as_numpy("y").tolist() == plain.tolist()
    error = fails(lambda: client.infer("identity_string", [given("x", x)], outputs=[wanted("y", binary_data=False)]))
    assert "no UTF-8" in error.message()


def test_several_inputs_mixed_and_several_outputs(client):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.array([10, 20])
    c = np.array([b"x", b"y"], object)
    inputs = [given("c", c), given("a", a, binary_data=False), given("b", b)]
    outputs = [wanted("said", binary_data=True), wanted("total", binary_data=False)]
    result = client.infer("several_inputs", inputs, outputs=outputs, request_id="some id")
    assert result.get_response()["id"] == "some id"
    assert result.as_numpy("total").tolist() == [13, 32]
    assert result.as_numpy("said").tolist() == [b"x:10", b"y:20"]


def test_signatures_that_are_not_all_rows(client):
    x = np.ones((2, 3), np.float32)
    warm = given("temperature", np.array(2, np.float32))
    assert client.infer("static_input", [given("x", x), warm]).as_numpy("p").shape == (2, 3)
    start, stop = given("start", np.array(3, np.int32)), given("stop", np.array(6, np.int32))
    assert client.infer("no_row_input", [start, stop]).as_numpy("numbers").tolist() == [3, 4, 5]
    config = client.get_model_config("no_row_input")
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, [])
    result = client.infer("mean_of_batch", [given("x", np.arange(8, dtype=np.float32).reshape(2, 4))])
    assert result.as_numpy("mean").tolist() == [2, 3, 4, 5]
    assert result.as_numpy("y").shape == (2, 4)
    for rows in (1, 8, 11):
        assert client.infer("fixed_eight", [given("x", np.ones((rows, 4), np.float32))]).as_numpy("y").shape == (
            rows,
            3,
        )


@pytest.mark.parametrize("binary", [True, False])
def test_no_rows_at_all(client, binary):
    x = np.empty((0, 4), np.float32)
    result = client.infer(
        "two_outputs", [given("x", x, binary_data=binary)], outputs=[wanted("scores", binary_data=binary)]
    )
    assert result.as_numpy("scores").shape == (0, 3)


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes_with_their_labels(client, binary):
    x = np.eye(2, 4, dtype=np.float32)
    scores = client.infer("two_outputs", [given("x", x)]).as_numpy("scores")
    outputs = [wanted("scores", binary_data=binary, class_count=2), wanted("best")]
    result = client.infer("two_outputs", [given("x", x)], outputs=outputs)
    names = LABELS.split()
    for row, texts, best in zip(scores, result.as_numpy("scores"), result.as_numpy("best"), strict=True):
        order = np.argsort(-row)[:2]
        assert [getattr(text, "decode", lambda text=text: text)() for text in texts] == [
            f"{row[index]:f}:{index}:{names[index]}" for index in order
        ]
        assert best == order[0]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_both_ways(client, coding):
    x = np.zeros((500, 4), np.float32)
    result = client.infer(
        "two_outputs", [given("x", x)], request_compression_algorithm=coding, response_compression_algorithm=coding
    )
    assert result.as_numpy("scores").shape == (500, 3)


def test_a_raw_request(client, address):
    import http.client

    connection = http.client.HTTPConnection(address)
    body = np.arange(4, dtype=np.float32).tobytes()
    connection.request("POST", "/v2/models/two_outputs/infer", body, {"Inference-Header-Content-Length": "0"})
    response = connection.getresponse()
    whole, length = response.read(), response.headers["Inference-Header-Content-Length"]
    connection.close()
    result = triton.InferResult.from_response_body(whole, header_length=int(length))
    same = client.infer("two_outputs", [given("x", np.arange(4, dtype=np.float32)[None])])
    assert result.as_numpy("scores").tolist() == same.as_numpy("scores").tolist()


def test_equal_rows_are_computed_once_and_statistics_say_so(client):
    def figures() -> Any:
        (told,) = client.get_inference_statistics("identity_float64", "1")["model_stats"]
        return told

    x = np.array([[41.0, 1], [42, 2], [43, 3]])
    before = figures()
    client.infer("identity_float64", [given("x", x[:2])])
    client.infer("identity_float64", [given("x", x)], priority=2, timeout=10_000_000)
    after = figures()

    def more(*path: str) -> int:
        one, other = before, after
        for name in path:
            one, other = one[name], other[name]
        return int(other) - int(one)

    assert (more("inference_count"), more("inference_stats", "compute_infer", "count")) == (3, 3)
    assert 2 <= more("execution_count") <= 3
    assert (more("inference_stats", "cache_hit", "count"), more("inference_stats", "cache_miss", "count")) == (2, 3)
    assert (more("inference_stats", "success", "count"), more("inference_stats", "fail", "count")) == (5, 0)
    assert more("inference_stats", "compute_infer", "ns") > 0
    assert more("inference_stats", "success", "ns") > 0
    assert after["last_inference"] > 0
    assert len(client.get_inference_statistics()["model_stats"]) == len(MODELS)


def test_the_server_and_its_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "rowserve"
    assert client.is_model_ready("two_outputs")
    assert client.is_model_ready("two_outputs", "1")
    assert not client.is_model_ready("two_outputs", "2")
    assert not client.is_model_ready("nothing")
    metadata = client.get_model_metadata("several_inputs")
    assert metadata["inputs"][2] == {"name": "c", "datatype": "BYTES", "shape": [-1]}
    assert metadata["versions"] == ["1"]
    config = client.get_model_config("two_outputs")
    assert config["max_batch_size"] >= 32
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "format": "FORMAT_NONE"}]
    assert {"name": "scores", "data_type": "TYPE_FP32", "dims": [3], "label_filename": "labels.txt"} in config["output"]
    index = client.get_model_repository_index()
    assert {"name": "fussy", "version": "1", "state": "READY", "reason": ""} in index
    assert len(index) == len(MODELS)


def test_what_is_wrong_is_an_exception_with_its_text(client):
    x = np.zeros((1, 4), np.float32)
    cases = [
        ("nothing", [given("x", x)], [], "404", "Request for unknown model: 'nothing' is not found"),
        ("fussy", [given("z", x)], [], "400", "unexpected inference input 'z' for model 'fussy'"),
        ("fussy", [given("x", x[:, :3])], [], "400", "unexpected shape for input 'x' for model 'fussy'"),
        (
            "fussy",
            [given("x", x.astype(np.float64))],
            [],
            "400",
            "unexpected data-type for input 'x' for model 'fussy'",
        ),
        ("fussy", [given("x", x)], ["q"], "400", "unexpected inference output 'q' for model 'fussy'"),
        ("fussy", [given("x", x)], ["y", "y"], "400", "output 'y' already exists in request"),
        ("fussy", [given("x", x + 2000)], [], "422", "a value above 1000"),
        ("several_inputs", [given("b", np.array([1]))], [], "400", "missing required input 'a'"),
    ]
    for model, inputs, outputs, status, told in cases:
        error = fails(lambda m=model, i=inputs, o=outputs: client.infer(m, i, outputs=[wanted(name) for name in o]))
        assert (error.status(), told in error.message()) == (status, True), error
    error = fails(lambda: client.infer("fussy", [given("x", x)], model_version="7"))
    assert error.message() == "Request for unknown model: 'fussy' version 7 is not found"
    short = given("x", x)
    short._raw_data = short._raw_data[:-4]
    assert (
        "byte size mismatch for input 'x'. Expected 16, got 12"
        in fails(lambda: client.infer("fussy", [resized(short, 12)])).message()
    )


def resized(tensor: Any, size: int) -> Any:
    tensor._parameters["binary_data_size"] = size
    return tensor


def test_what_is_not_supported_is_said(client):
    for call in (
        lambda: client.load_model("fussy"),
        lambda: client.unload_model("fussy"),
        lambda: client.register_system_shared_memory("r", "/r", 8),
        lambda: client.update_trace_settings(settings={"trace_rate": "1"}),
        lambda: client.update_log_settings({"log_info": False}),
    ):
        error = fails(call)
        assert error.status() == "501"
        assert "is not supported" in error.message()


def test_a_body_over_the_limit(client):
    x = np.zeros((1, 20 << 20), np.float32)
    error = fails(lambda: client.infer("identity_float32", [given("x", x)]))
    assert error.status() == "413"
    assert "more than" in error.message()


def test_the_asyncio_client(address):
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            x = values("bfloat16")
            result = await client.infer("identity_bfloat16", [given("x", x, triton_aio)])
            assert result.as_numpy("y").tobytes() == x.tobytes()
            many = np.zeros((500, 4), np.float32)
            for coding in (None, "gzip", "deflate"):
                result = await client.infer(
                    "two_outputs",
                    [given("x", many, triton_aio)],
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                assert result.as_numpy("scores").shape == (500, 3)
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nothing", [given("x", x, triton_aio)])

    asyncio.run(talk())


# gRPC


@pytest.mark.parametrize("dtype", DTYPES)
def test_grpc_every_dtype(remote, dtype):
    x = values(dtype)
    result = remote.infer(f"identity_{dtype}", [given("x", x, triton_grpc)], request_id="7")
    y = result.as_numpy("y")
    assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, x.shape, x.tobytes())
    assert (result.get_response().id, result.get_response().model_version) == ("7", "1")


def test_grpc_strings_several_tensors_and_no_rows(remote):
    x = np.array([[b"\0\xff", b""], [b"a" * 1000, "ä".encode()]], dtype=object)
    assert remote.infer("identity_string", [given("x", x, triton_grpc)]).as_numpy("y").tolist() == x.tolist()
    a, b, c = np.ones((2, 3), np.float32), np.array([10, 20]), np.array([b"x", b"y"], object)
    inputs = [given(name, array, triton_grpc) for name, array in (("c", c), ("a", a), ("b", b))]
    result = remote.infer("several_inputs", inputs, outputs=[wanted(name, triton_grpc) for name in ("total", "said")])
    assert result.as_numpy("total").tolist() == [13, 23]
    assert result.as_numpy("said").tolist() == [b"x:10", b"y:20"]
    none = given("x", np.empty((0, 4), np.float32), triton_grpc)
    assert remote.infer("two_outputs", [none]).as_numpy("scores").shape == (0, 3)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_grpc_best_classes_and_compression(remote, coding):
    x = np.eye(1, 4, dtype=np.float32)
    outputs = [wanted("scores", triton_grpc, class_count=1)]
    given_x = [given("x", x, triton_grpc)]
    (text,) = remote.infer("two_outputs", given_x, outputs=outputs, compression_algorithm=coding).as_numpy("scores")[0]
    best = int(remote.infer("two_outputs", given_x).as_numpy("best")[0])
    assert text.decode().split(":")[1:] == [str(best), LABELS.split()[best]]


def test_grpc_rows_are_those_of_http(client, remote):
    x = np.array([[141.0, 1], [142, 2]])
    client.infer("identity_float64", [given("x", x)])
    before = remote.get_inference_statistics("identity_float64").model_stats[0]
    remote.infer("identity_float64", [given("x", x, triton_grpc)], priority=2, timeout=10_000_000)
    after = remote.get_inference_statistics("identity_float64").model_stats[0]
    assert after.inference_stats.cache_hit.count - before.inference_stats.cache_hit.count == 2
    assert after.inference_count == before.inference_count
    assert after.inference_stats.compute_infer.ns > 0
    assert len(remote.get_inference_statistics().model_stats) == len(MODELS)


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_signature_by_name(client, remote, door):
    module, asked = (triton, client) if door == "http" else (triton_grpc, remote)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for name, output, shape in (("embed", "e", (2, 3)), ("score", "s", (2,))):
        result = asked.infer("no_default", [given("x", x, module)], parameters={"signature_name": name})
        assert result.as_numpy(output).shape == shape
    assert "embed, score" in fails(lambda: asked.infer("no_default", [given("x", x, module)])).message()


def test_grpc_the_server_and_its_models(client, remote):
    assert remote.is_server_live()
    assert remote.is_server_ready()
    assert remote.is_model_ready("two_outputs", "1")
    assert remote.get_server_metadata(as_json=True) == client.get_server_metadata()
    told, same = remote.get_model_metadata("several_inputs", as_json=True), client.get_model_metadata("several_inputs")
    assert [each["name"] for each in told["inputs"]] == [each["name"] for each in same["inputs"]]
    assert told["inputs"][0]["shape"] == ["-1", "3"]
    config, plain = remote.get_model_config("two_outputs").config, client.get_model_config("two_outputs")
    assert config.max_batch_size == plain["max_batch_size"]
    assert list(config.input[0].dims) == plain["input"][0]["dims"]
    assert config.dynamic_batching.preferred_batch_size == plain["dynamic_batching"]["preferred_batch_size"]
    assert config.response_cache.enable
    index = remote.get_model_repository_index().models
    assert [entry.name for entry in index] == [entry["name"] for entry in client.get_model_repository_index()]
    assert {entry.state for entry in index} == {"READY"}


def test_grpc_what_is_wrong_is_an_exception_with_its_code(remote):
    x = np.zeros((1, 4), np.float32)
    cases = [
        ("nothing", x, [], "NOT_FOUND", "Request for unknown model: 'nothing' is not found"),
        ("fussy", x[:, :3], [], "INVALID_ARGUMENT", "unexpected shape for input 'x' for model 'fussy'"),
        ("fussy", x.astype(np.float64), [], "INVALID_ARGUMENT", "unexpected data-type for input 'x'"),
        ("fussy", x, ["q"], "INVALID_ARGUMENT", "unexpected inference output 'q' for model 'fussy'"),
        ("fussy", x + 2000, [], "INVALID_ARGUMENT", "a value above 1000"),
        ("two_outputs", np.zeros((1, 20 << 20), np.float32), [], "RESOURCE_EXHAUSTED", "larger than max"),
    ]
    for model, array, outputs, code, told in cases:
        inputs, names = [given("x", array, triton_grpc)], [wanted(name, triton_grpc) for name in outputs]
        error = fails(lambda m=model, i=inputs, o=names: remote.infer(m, i, outputs=o))
        assert error.status() == f"StatusCode.{code}"
        assert told in error.message()
    error = fails(lambda: remote.infer("fussy", [given("x", x, triton_grpc)], model_version="7"))
    assert error.message() == "Request for unknown model: 'fussy' version 7 is not found"


def test_grpc_what_is_not_supported_is_said(remote):
    for call in (
        lambda: remote.load_model("fussy"),
        lambda: remote.unload_model("fussy"),
        lambda: remote.register_system_shared_memory("r", "/r", 8),
        lambda: remote.update_trace_settings(settings={"trace_rate": "1"}),
        lambda: remote.update_log_settings({"log_info": False}),
    ):
        error = fails(call)
        assert error.status() == "StatusCode.UNIMPLEMENTED"
        assert "is not supported" in error.message()


def test_the_grpc_asyncio_client(doors):
    async def talk() -> None:
        async with triton_grpc_aio.InferenceServerClient(doors[1]) as client:
            x = values("float16")
            result = await client.infer("identity_float16", [given("x", x, triton_grpc_aio)])
            assert result.as_numpy("y").tobytes() == x.tobytes()

    asyncio.run(talk())


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_reads_of_what_is_not_there(client, remote, door):
    asked = client if door == "http" else remote
    more = {} if door == "http" else {"as_json": True}
    for told in (asked.get_system_shared_memory_status(**more), asked.get_cuda_shared_memory_status(**more)):
        assert told in ([], {})
    asked.unregister_system_shared_memory()
    asked.unregister_cuda_shared_memory("r")
    trace = asked.get_trace_settings("fussy", **more)
    assert "OFF" in str(trace["trace_level"] if door == "http" else trace["settings"]["trace_level"])
    log = asked.get_log_settings(**more)
    assert "log_verbose_level" in (log if door == "http" else log["settings"])


def test_a_stream_of_requests(remote):
    answers: Any = queue.Queue()
    remote.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        x = np.full((1, 4), 2000 if number == 7 else number, np.float32)
        remote.async_stream_infer("fussy", [given("x", x, triton_grpc)], request_id=str(number))
    remote.async_stream_infer("nothing", [given("x", x, triton_grpc)])
    came = [answers.get(timeout=60) for _ in range(21)]
    remote.stop_stream()
    assert [n for n, (_, error) in enumerate(came) if error is not None] == [7, 20]
    assert "a value above 1000" in came[7][1].message()
    assert "Request for unknown model: 'nothing' is not found" in came[20][1].message()
    for number, (result, _) in enumerate(came[:20]):
        if number != 7:
            alone = remote.infer("fussy", [given("x", np.full((1, 4), number, np.float32), triton_grpc)])
            assert result.get_response().id == str(number)
            assert np.allclose(result.as_numpy("y"), alone.as_numpy("y"), rtol=1e-5, atol=1e-6)


def test_grpc_tells_the_name_of_its_profile(tmp_path: Path) -> None:
    told = ("--grpc", "127.0.0.1:0,profile=triton", "--model", f"m={arithmetic_model(tmp_path / 'm')}", "--no-cache")
    with started("serve", "--listen", "127.0.0.1:0", *told) as process:
        assert process.stderr is not None
        found = (re.search(r"on grpc://(\S+)", line.decode()) for line in process.stderr)
        lane = next(each for each in found if each is not None)
        asked = triton_grpc.InferenceServerClient(lane[1])
        assert asked.get_server_metadata(as_json=True)["name"] == "triton"
        asked.close()
