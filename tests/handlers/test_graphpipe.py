"""GraphPipe: what goes in comes out, names and defaults, and every fault in words that a client shows."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from flatbuffers import Builder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import graphpipe
from rowserve.handlers.graphpipe_metadata import encode_json, metadata_json
from rowserve.handlers.graphpipe_slots import Slots
from rowserve.handlers.graphpipe_tensors import infer_response
from rowserve.handlers.items import Answer, Encoded, ModelFace, Outcome, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import TensorFault
from tests.handlers.graphpipe_requests import (
    METADATA,
    TYPES,
    answered,
    infer_request,
    offsets,
    request,
    tensor_table,
)
from tests.mutations import MUTATIONS

ALL = (*TYPES, "string")
NO_HEADERS: dict[str, str] = {}


def spec(name: str, dtype: str = "float32", shape: Any = (2,), batched: bool = True) -> TensorSpec:
    return TensorSpec(name, dtype, shape, batched)


def face(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (spec("y"),), **more: Any) -> ModelFace:
    return ModelFace("m", 3, {"serving_default": Signature("serving_default", inputs, outputs, **more)})


ONE = face(spec("x"))
TWO = face(spec("a", "int64", ()), spec("b", "string", (2,)))
STATIC = face(spec("k", "int32", (), batched=False), spec("x"))
MIXED = face(spec("x"), outputs=(spec("best", "int64", ()), spec("flag", "bool", ()), spec("scores")))


def read(body: Buffer, model: ModelFace = ONE, headers: dict[str, str] = NO_HEADERS) -> Question[Encoded]:
    question = graphpipe.read_request(model, headers, body)
    assert isinstance(question, Question)
    return question


def rows_of(body: Buffer, model: ModelFace = ONE) -> Rows:
    (rows,) = read(body, model).items
    assert isinstance(rows, Rows)
    return rows


def arrays(body: bytes, model: ModelFace = ONE) -> dict[str, Any]:
    rows = rows_of(body, model)
    return {name: array.tolist() for name, array in {**rows.arrays, **rows.static}.items()}


def refused(body: bytes, model: ModelFace = ONE) -> str:
    with pytest.raises(Problem) as caught:
        graphpipe.read_request(model, NO_HEADERS, body)
    assert caught.value.status == 400
    return caught.value.detail


def answer(model: ModelFace, outputs: dict[str, Any], outcome: Outcome = Outcome.HIT) -> Answer:
    layout = RowLayout(model.signature().outputs)
    count = len(next(iter(outputs.values())))
    return Answer(layout, [*layout.pack(outputs, count)], [outcome] * count)


def tensors(dtype: str) -> st.SearchStrategy[Any]:
    shapes = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    if dtype == "string":
        return arrays_of.arrays(object, shapes, elements=st.binary(max_size=9), fill=st.nothing())
    return arrays_of.arrays(dtype, shapes)


def same(one: Any, other: Any) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return bool(one.tolist() == other.tolist() if one.dtype == object else one.tobytes() == other.tobytes())


# What goes in, and what comes out


@pytest.mark.parametrize("dtype", ALL)
@given(data=st.data())
def test_a_tensor_comes_in_as_it_was(dtype, data):
    array = data.draw(tensors(dtype))
    batched = array.ndim > 0
    rows = rows_of(infer_request([array]), face(spec("x", dtype, None, batched)))
    assert same((rows.arrays if batched else rows.static)["x"], array)
    assert rows.count == (len(array) if batched else 1)


@pytest.mark.parametrize("dtype", ALL)
@given(data=st.data())
def test_tensors_go_out_as_they_are(dtype, data):
    outputs = {str(index): data.draw(tensors(each)) for index, each in enumerate((dtype, "uint8", dtype))}
    body = infer_response(outputs)
    assert all(same(one, other) for one, other in zip(answered(body), outputs.values(), strict=True))
    assert Slots.root(body).count(1) == 0  # no errors


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_the_elements_of_an_answer_are_aligned(dtype):
    """Go and C++ clients read them where they lie."""
    body = infer_response({"a": np.ones(3, np.uint8), "b": np.ones((3, 5), dtype), "c": np.ones((), dtype)})
    start = np.frombuffer(body, np.uint8).__array_interface__["data"][0]
    places = [array.__array_interface__["data"][0] - start for array in answered(body)]
    assert [place % 8 for place in places] == [0, 0, 0]


@pytest.mark.parametrize("form", [bytes, lambda body: memoryview(bytearray(body)).toreadonly()])
def test_numbers_are_not_copied(form):
    body = form(infer_request([np.ones((3, 2), np.float32)]))
    rows = rows_of(body)
    assert np.shares_memory(rows.arrays["x"], np.frombuffer(body, np.uint8))
    assert not rows.arrays["x"].flags.writeable


def test_elements_may_lie_anywhere():
    """The schema aligns them to four bytes, and hand-made buffers to none."""
    body = infer_request([np.arange(6, dtype=np.float64).reshape(3, 2)])
    for gap in range(8):
        moved = memoryview(b"-" * gap + body)[gap:]
        rows = rows_of(moved, face(spec("x", "float64")))
        assert RowLayout([spec("x", "float64")]).pack(rows.arrays, 3)[1] == np.array([2.0, 3.0]).tobytes()


def test_an_answer_of_more_than_a_flatbuffer_holds_is_refused():
    with pytest.raises(Problem) as caught:
        infer_response({"y": np.broadcast_to(np.float32(0), (2**29, 1))})
    assert caught.value.status == 500


# Names


def test_inputs_by_place_and_by_name():
    a, b = np.array([1, 2]), np.array([[b"u", b"v"], [b"w", b"\0\xff"]], dtype=object)
    told = {"a": [1, 2], "b": [[b"u", b"v"], [b"w", b"\0\xff"]]}
    assert arrays(infer_request([a, b]), TWO) == told
    assert arrays(infer_request([a, b], names=[], config=None), TWO) == told
    assert arrays(infer_request([a, b], names=["a"]), TWO) == told
    assert arrays(infer_request([a, b], names=["", "b"]), TWO) == told
    assert arrays(infer_request({"b": b, "a": a}), TWO) == told
    assert arrays(infer_request({"b:0": b, "a:0": a}), TWO) == told
    assert arrays(infer_request({"x": np.zeros((1, 2), np.float32)}), face(spec("x:0"))) == {"x:0": [[0, 0]]}


def test_an_input_without_rows_stands_beside_them():
    body = infer_request({"x": np.zeros((3, 2), np.float32), "k": np.int32(7)})
    assert arrays(body, STATIC) == {"x": [[0, 0]] * 3, "k": 7}


def test_the_config_is_not_looked_at():
    x = np.ones((1, 2), np.float32)
    for config in (None, "", "{}", "not json \0", "x" * 10_000):
        assert arrays(infer_request([x], config=config)) == {"x": [[1, 1]]}


def test_an_empty_batch():
    rows = rows_of(infer_request([np.empty((0, 2), np.float32)]))
    assert rows.count == 0
    encoded = read(infer_request([np.empty((0, 2), np.float32)])).encode(answer(ONE, {"y": np.empty((0, 2), "f")}))
    assert [array.shape for array in answered(encoded.body)] == [(0, 2)]


def test_outputs_come_in_the_order_asked_for():
    made = answer(MIXED, {"best": np.array([4, 5]), "flag": np.array([True, False]), "scores": np.ones((2, 2), "f")})
    x = np.ones((2, 2), np.float32)

    def shapes(outputs: Any) -> list[Any]:
        encoded = read(infer_request([x], outputs), MIXED).encode(made)
        assert encoded.status == 200
        return [array.shape for array in answered(encoded.body)]

    assert shapes(None) == shapes([]) == [(2,), (2, 2)]  # all that GraphPipe has a type for
    assert shapes(["scores", "best"]) == [(2, 2), (2,)]
    assert shapes(["scores:0"]) == [(2, 2)]


def test_the_answers_headers_and_the_wishes_of_a_request():
    headers = {"cache-control": "no-store", "request-timeout": "2"}
    question = read(infer_request([np.ones((2, 2), np.float32)]), headers=headers)
    assert (question.options.protocol, question.options.timeout) == ("graphpipe", 2.0)
    assert question.options.cache.no_store
    encoded = question.encode(answer(ONE, {"y": np.ones((2, 2), "f")}))
    told = dict(encoded.headers)
    assert (told["Content-Type"], told["Cache-Status"]) == ("application/octet-stream", "rowserve; hit")


def test_a_row_that_failed_fails_the_request():
    made = answer(ONE, {"y": np.ones((2, 2), "f")})
    made.packed[1], made.errors[1] = None, Problem(422, "row 1 is bad")
    with pytest.raises(Problem, match="row 1 is bad"):
        read(infer_request([np.ones((2, 2), np.float32)])).encode(made)


# Metadata


def test_metadata_for_whatever_asks_for_no_inference():
    builder = Builder(64)
    builder.StartObject(0)
    for body in (METADATA, request(builder, 7, builder.EndObject())):
        encoded = graphpipe.read_request(TWO, NO_HEADERS, body)
        assert isinstance(encoded, Encoded)
        told = Slots.root(encoded.body)
        assert [bytes(told.vector(slot, 1)) for slot in (0, 1, 2)] == [b"m", b"3", b"rowserve"]
        names = [(bytes(each.vector(0, 1)), bytes(each.vector(2, 8)), each.number(3)) for each in told.tables(4)]
        free = (-1).to_bytes(8, "little", signed=True)
        assert names == [(b"a", free, 8), (b"b", free + (2).to_bytes(8, "little"), 12)]
        assert [each.number(3) for each in told.tables(5)] == [10]


def test_metadata_as_go_writes_it():
    encoded = encode_json(metadata_json(STATIC))
    assert orjson.loads(encoded.body) == {
        "Name": "m",
        "Version": "3",
        "Server": "rowserve",
        "Description": "signature serving_default",
        "Inputs": [
            {"Name": "k", "Description": "", "Shape": None, "Type": 6},
            {"Name": "x", "Description": "", "Shape": [-1, 2], "Type": 10},
        ],
        "Outputs": [{"Name": "y", "Description": "", "Shape": [-1, 2], "Type": 10}],
    }
    assert encoded.body.startswith(b'{\n  "Name": "m",\n')
    fixed = face(spec("x", "bool", None), outputs=(spec("y", "bfloat16"),), batch=8)
    assert metadata_json(fixed)["Inputs"][0] == {"Name": "x", "Description": "", "Shape": None, "Type": 0}
    assert metadata_json(fixed)["Outputs"] is None


# Faults

X = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("body", "model", "words"),
    [
        (infer_request({"nothing": X}), ONE, "no input 'nothing'; the inputs are: x"),
        (infer_request([X, X]), ONE, "2 tensors for the inputs: x"),
        (infer_request([]), ONE, "input 'x' is missing"),
        (infer_request([np.array([1])]), TWO, "input 'b' is missing"),
        (infer_request([X], names=["x", "y"]), ONE, "2 input names for 1 tensors"),
        (infer_request([X, X], names=["x", "x:0"]), face(spec("x"), spec("z")), "input 'x' is there twice"),
        (infer_request([X], ["nothing"]), ONE, "no output 'nothing'; the outputs are: y"),
        (infer_request([X], [""]), ONE, "no output ''"),
        (infer_request([X], ["y", "y"]), ONE, "2 output names"),
        (infer_request([X], ["scores", "scores:0"]), MIXED, "asked for twice"),
        (infer_request([X], ["flag"]), MIXED, "output 'flag' is bool, for which GraphPipe has no type"),
        (infer_request([X]), face(spec("x"), outputs=(spec("y", "bool"),)), "no type for any"),
        (infer_request([X.astype(np.float64)]), ONE, "input 'x' takes float32, not float64"),
        (infer_request([np.array([[b"a", b"b"]], dtype=object)]), ONE, "takes float32, not string"),
        (infer_request([np.ones((2, 3), np.float32)]), ONE, "takes the shape [-1, 2], not [2, 3]"),
        (infer_request([np.float32(1)]), ONE, "not a scalar"),
        (infer_request([np.array([1, 2]), np.array([[b"", b""]], dtype=object)]), TWO, "different numbers of rows"),
    ],
)
def test_faults_name_what_is_wrong(body, model, words):
    assert words in refused(body, model)


def lie(**told: Any) -> bytes:
    """A request whose tensor is not what it says."""
    builder = Builder(64)
    array = told.pop("array", X)
    table = offsets(builder, [tensor_table(builder, array, **told)])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(2, table, 0)
    return request(builder, 1, builder.EndObject())


TEXTS = np.array([b"a", b"b"], dtype=object)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lie(kind=0), "type 0, which is none of GraphPipe's 1 to 12"),
        (lie(kind=13), "type 13"),
        (lie(shape=(2, 1)), "[2, 1] of float32 takes 8 bytes, not 16"),
        (lie(shape=(10**6, 10**6)), "cannot have the shape [1000000, 1000000]"),
        (lie(shape=(2**62, 4)), "cannot have the shape"),
        (lie(shape=(-1, 2)), "cannot have the shape [-1, 2]"),
        (lie(shape=(1,) * 65), "more than 64 dimensions"),
        (lie(shape=(10**12, 0), data=b""), "cannot have the shape [1000000000000, 0]"),
        (lie(shape=(10**6, 0), data=b""), "cannot have the shape [1000000, 0]"),
        (lie(data=b"123"), "takes 16 bytes, not 3"),
        (lie(array=TEXTS, shape=(3,)), "[3] takes 3 strings, not 2"),
        (lie(array=TEXTS, shape=(10**9,)), "takes 1,000,000,000 strings, not 2"),
    ],
)
def test_tensors_that_lie_are_refused_before_anything_is_made_of_them(body, words):
    tracemalloc.start()
    try:
        assert words in refused(body, face(spec("x", "float32", None)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_strings_that_share_their_bytes_are_refused():
    """A megabyte of offsets to one long string would be as many strings as there are offsets."""
    builder = Builder(64)
    text = builder.CreateString(b"x" * 100_000)
    places = offsets(builder, [text] * 10_000)
    builder.StartVector(8, 1, 8)
    builder.PrependInt64(10_000)
    shape = builder.EndVector()
    builder.StartObject(4)
    builder.PrependUint8Slot(0, 12, 0)
    builder.PrependUOffsetTRelativeSlot(1, shape, 0)
    builder.PrependUOffsetTRelativeSlot(3, places, 0)
    table = offsets(builder, [builder.EndObject()])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(2, table, 0)
    body = request(builder, 1, builder.EndObject())
    assert "longer than the body" in refused(body, face(spec("x", "string", ())))


@pytest.mark.parametrize("body", [b"", b"\0", b"abc", b'{"instances": [1]}', b"\xff" * 64, METADATA[:11]])
def test_what_is_no_flatbuffer_is_told(body):
    assert "no GraphPipe request" in refused(body)


def status(body: bytes, model: ModelFace) -> int:
    """200 for a request that was read, else what it was refused with."""
    try:
        graphpipe.read_request(model, NO_HEADERS, body)
    except Problem as problem:
        return problem.status
    return 200


def mutations(bodies: list[bytes], count: int) -> Any:
    """The bodies with bytes changed, cut, put in or doubled; the same every time."""
    dice = random.Random(7)
    for _ in range(count):
        body = bytearray(dice.choice(bodies))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(body) + 1)
            change = dice.randrange(5)
            if change == 0:
                body[at : at + 1] = bytes([dice.choice((0, 1, 4, 127, 128, 255, dice.randrange(256)))])
            elif change == 1:
                del body[at : at + dice.randint(1, 8)]
            elif change == 2:
                body[at:at] = dice.randbytes(dice.randint(1, 8))
            elif change == 3:
                body[at : at + 4] = dice.randbytes(4)
            else:
                body[at:at] = body[max(at - 8, 0) : at]
        yield bytes(body)


def test_mutated_bodies_are_read_or_refused():
    strings_of = np.array([[b"u", b"v"], [b"w", b"\0\xff"]], dtype=object)
    bodies = [
        METADATA,
        infer_request({"a": np.array([1, 2]), "b": strings_of}, ["y"], "config"),
        infer_request([np.array([1, 2]), strings_of]),
        lie(),
    ]
    free = face(spec("a", "int64", None), spec("b", "string", None))
    statuses = [status(body, model) for body in mutations(bodies, MUTATIONS) for model in (TWO, free)]
    assert set(statuses) == {200, 400}
    assert statuses.count(200) > 100


@given(body=st.binary(max_size=200))
def test_noise_is_read_or_refused(body):
    assert status(body, TWO) in (200, 400)


# How a fault is written


def test_a_fault_is_in_the_body_and_in_the_reason_phrase():
    encoded = graphpipe.encode_fault(Problem(503, "model m is still loading", retry_after=0.2))
    assert (encoded.status, encoded.body, encoded.reason) == (
        503, b"model m is still loading\n", "model m is still loading"
    )
    assert dict(encoded.headers) == {"Content-Type": "text/plain; charset=utf-8", "Retry-After": "1"}


@given(text=st.text(max_size=500))
def test_a_reason_phrase_is_one_short_line_of_latin_1(text):
    reason = graphpipe.encode_fault(TensorFault("shape", "x", text)).reason
    assert len(reason) <= 200
    assert reason == " ".join(reason.encode("latin-1").decode("latin-1").split(" "))
    assert all(each.isprintable() for each in reason)
