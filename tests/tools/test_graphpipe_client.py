"""GraphPipe's own Python client against a running server."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.signature import STRING
from tests.model_recipes import RECIPES
from tests.tools.processes import REAL, server

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
MODELS = [f"identity_{dtype}" for dtype in (*DTYPES, STRING, "bool")] + ["several_inputs", "static_input", "fussy"]


def imported(name: str) -> Any:
    """A module of the client. tox installs it; where it is missing otherwise, these tests are skipped."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if "TOX_ENV_NAME" in os.environ:
            raise
        pytest.skip("needs: pip install requests, pip install --no-deps graphpipe==1.0.4", allow_module_level=True)


pytestmark = pytest.mark.filterwarnings("ignore:numElems is deprecated")  # the client's, in every call
remote, requests = imported("graphpipe.remote"), imported("requests")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of all MODELS."""
    home = tmp_path_factory.mktemp("graphpipe")
    for name in MODELS:
        RECIPES[name](home / "models" / name / "1")
    with server("--models", str(home / "models"), "--cache", str(home / "cache"), program=REAL) as address:
        yield address


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the arithmetic model alone."""
    home: Path = tmp_path_factory.mktemp("one")
    (home / "m" / "1").mkdir(parents=True)
    (home / "m" / "1" / "saved_model.pb").write_bytes(b"arithmetic")
    with server("--model", f"m={home / 'm'}", "--cache", str(home / "cache")) as address:
        yield address


def cached(address: str, body: bytes) -> str:
    """What the answer to a request says of the cache."""
    told: str = requests.post(address, data=body).headers["Cache-Status"]
    return told


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(url, dtype):
    x = np.arange(12).reshape(4, 3).astype(dtype)
    for given in (x, np.asfortranarray(x), x[:1]):
        y = remote.execute(f"{url}/graphpipe/identity_{dtype}", given)
        assert (y.dtype, y.shape, y.tolist()) == (given.dtype, given.shape, given.tolist())


def test_an_empty_batch_has_an_empty_answer(url, root):
    double, total = remote.execute_multi(root, [np.empty((0, 4), np.float32)], None, None)
    assert (double.shape, total.shape) == ((0, 4), (0,))
    assert len(remote.execute(f"{url}/graphpipe/identity_string", np.empty((0, 2), dtype=object))) == 0
    assert remote.execute(f"{url}/graphpipe/identity_float32", np.empty((0, 3), np.float32)).shape == (0, 3)


def test_special_numbers_come_back(url):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-45]], np.float32)
    assert remote.execute(f"{url}/graphpipe/identity_float32", x).tobytes() == x.tobytes()


def test_strings_come_back(url):
    x = np.array([[b"a", b"\0\xff"], [b"", "ä".encode()]], dtype=object)
    assert remote.execute(f"{url}/graphpipe/identity_string", x).tolist() == x.tolist()
    text = remote.execute(f"{url}/graphpipe/identity_string", np.array([["one", "två"]]))
    assert text.tolist() == [[b"one", "två".encode()]]


def test_several_inputs_and_outputs_by_name_and_by_place(url):
    address = f"{url}/graphpipe/several_inputs"
    a, b, c = np.ones((2, 3), np.float32), np.array([4, 5]), np.array([b"x", b"y"], dtype=object)
    said, total = [b"x:4", b"y:5"], [7.0, 8.0]

    def plain(*arguments: Any, **more: Any) -> list[Any]:
        return [output.tolist() for output in remote.execute_multi(address, *arguments, **more)]

    assert plain([a, b, c], None, None) == [said, total]
    assert plain([c, a, b], ["c", "a", "b"], ["total", "said"]) == [total, said]
    assert plain([c, a, b], ["c:0", "a:0", "b:0"], ["total:0"], config='{"any": "thing"}') == [total]


def test_a_scalar_input(url):
    x, temperature = np.zeros((2, 3), np.float32), np.float32(2)
    (p,) = remote.execute_multi(f"{url}/graphpipe/static_input", [x, np.array(temperature)], ["x", "temperature"], None)
    assert p.shape == (2, 3)
    np.testing.assert_allclose(p, 1 / 3, rtol=1e-6)


def test_the_only_model_answers_at_the_root(root):
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    double, total = remote.execute_multi(root, [x], None, None)
    assert (double.tolist(), total.tolist()) == ((x * 2).tolist(), [6, 22])
    assert remote.execute(root, x, "x:0", "sum").tolist() == [6, 22]


def test_metadata(url, root):
    address = f"{url}/graphpipe/several_inputs"
    assert remote.get_input_names(address) == ["a", "b", "c"]
    assert remote.get_output_names(address) == ["said", "total"]
    assert remote.get_input_shapes(address) == [[None, 3], [None], [None]]
    assert remote.get_output_types(address) == [np.dtype(object), np.dtype(np.float32)]
    assert remote.get_input_types(f"{url}/graphpipe/identity_float16") == [np.dtype(np.float16)]
    assert remote.get_output_shapes(root) == [[None, 4], [None]]
    told = remote.metadata(root)
    assert (told.Name(), told.Version(), told.Server()) == (b"m", b"1", b"rowserve")
    output = requests.get(root).json()["Outputs"][0]
    assert output == {"Name": "double", "Description": "", "Shape": [-1, 4], "Type": 10}


X = np.ones((1, 4), np.float32)


@pytest.mark.parametrize(
    ("path", "arguments", "words"),
    [
        ("/graphpipe/nothing", (X,), "404 Client Error: there is no model 'nothing'; there is: "),
        ("/graphpipe/fussy/versions/2", (X,), "404 Client Error: model fussy has no version 2; it has: 1"),
        ("/graphpipe/fussy", (X, "z"), "400 Client Error: there is no input 'z'; the inputs are: x"),
        ("/graphpipe/fussy", (X, "x", "z"), "400 Client Error: there is no output 'z'; the outputs are: y"),
        ("/graphpipe/fussy", (X[:, :3],), "400 Client Error: input 'x' takes the shape [-1, 4], not [1, 3]"),
        ("/graphpipe/fussy", (X.astype(np.int8),), "400 Client Error: input 'x' takes float32, not int8"),
        ("/graphpipe/fussy", (X * 2000,), "a value above 1000"),
        ("/graphpipe/identity_bool", (X,), "no type for any of the model's outputs"),
        ("/", (X,), "POST /graphpipe/NAME, for: fussy, "),
    ],
)
def test_the_client_shows_what_is_wrong(url, path, arguments, words):
    with pytest.raises(requests.exceptions.HTTPError) as caught:
        remote.execute(f"{url}{path}", *arguments)
    assert words in str(caught.value)


def test_rows_are_cached_one_by_one(root):
    requests_of = imported("graphpipe.convert")

    def body(*rows: list[float]) -> bytes:
        asked = requests_of.InferReq(None, [np.array(rows, np.float32)])
        return bytes(requests_of.serialize_infer_request(asked))

    first, second, third = [[0.5, seed, 0.25, 7] for seed in (1, 2, 3)]
    assert cached(root, body(first, second)) == 'rowserve; fwd=miss; detail="computed=2"'
    assert cached(root, body(first, second)) == "rowserve; hit"
    assert cached(root, body(second, third, first)) == 'rowserve; fwd=partial; detail="hit=2 computed=1"'
