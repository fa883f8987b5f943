"""The Open Inference Protocol's gRPC form, against the messages of Triton's own client."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from rowserve.graphs.rows import Array, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec, numpy_dtype
from rowserve.handlers.items import Answer, Labels, ModelFace, Options, Outcome, Priority, Question
from rowserve.handlers.open_inference_contents import FIELDS
from rowserve.handlers.open_inference_datatypes import DTYPES, NAMES, tensor_bytes
from rowserve.handlers.open_inference_grpc import infer_question, read_infer, read_names, read_only_ready
from rowserve.handlers.open_inference_messages import MESSAGES
from rowserve.handlers.problem import Problem
from tests.mutations import MUTATIONS

theirs: Any = service_pb2
CONTENTS = [
    "", "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents", "fp32_contents",
    "fp64_contents", "bytes_contents",
]  # fmt: skip
OPTIONS = Options("open_inference_grpc")


def face(*specs: tuple[str, str, Any], labels: Labels | None = None) -> ModelFace:
    """A model whose outputs are its inputs."""
    tensors = tuple(TensorSpec(name, dtype, shape) for name, dtype, shape in specs)
    return ModelFace("m", 3, {"serving_default": Signature("serving_default", tensors, tensors)}, labels)


PAIR = face(("x", "float32", (2,)), labels=Labels("x", ["cat", "dog"]))


def tensor(name: str, array: Array, typed: bool = False) -> Any:
    dtype = "string" if array.dtype == object else array.dtype.name
    made = theirs.ModelInferRequest.InferInputTensor(name=name, datatype=NAMES[dtype], shape=array.shape)
    if typed:
        getattr(made.contents, CONTENTS[FIELDS[dtype]]).extend(array.ravel().tolist())
    return made


def request(arrays: dict[str, Array], typed: bool = False, **more: Any) -> Any:
    made = theirs.ModelInferRequest(model_name="m", **more)
    for name, array in arrays.items():
        made.inputs.append(tensor(name, array, typed))
        if not typed:
            made.raw_input_contents.append(bytes(tensor_bytes(array)))
    return made


def ask(model: ModelFace, message: Any) -> Question[bytes]:
    raw = message if isinstance(message, bytes) else message.SerializeToString()
    return infer_question(model, read_infer(raw), OPTIONS)


def answer(question: Question[bytes]) -> Any:
    """The rows that were asked, given back."""
    (rows,) = question.items
    assert isinstance(rows, Rows)
    layout = RowLayout(question.signature.outputs)
    packed: list[Any] = list(layout.pack(rows.arrays, rows.count))
    made = question.encode(Answer(layout, packed, [Outcome.HIT] * rows.count))
    return theirs.ModelInferResponse.FromString(made)


def arrays_of(response: Any) -> dict[str, Array]:
    assert len(response.outputs) == len(response.raw_output_contents)
    found = {}
    for output, blob in zip(response.outputs, response.raw_output_contents, strict=True):
        assert not output.HasField("contents")
        dtype = numpy_dtype(DTYPES[output.datatype])
        array = np.array(strings(blob), object) if dtype.kind == "O" else np.frombuffer(blob, dtype)
        found[output.name] = array.reshape(output.shape)
    return found


def strings(blob: bytes) -> list[bytes]:
    found = []
    while blob:
        size = int.from_bytes(blob[:4], "little")
        found.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    return found


def refused(model: ModelFace, message: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        ask(model, message)
    return caught.value


def same(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype == object else one.tobytes() == other.tobytes()


def values(dtype: str) -> Array:
    spec = numpy_dtype(dtype)
    if dtype == "string":
        return np.array([[b"\0\xff", b""], [b"a", b"word" * 100]], object)
    if dtype == "bool":
        return np.array([[True, False], [False, True]])
    if spec.kind in "iu":
        return np.array([[np.iinfo(spec).min, np.iinfo(spec).max], [0, 1]], spec)
    return np.array([[1.5, -0.0], [float("nan"), float("-inf")]], spec)


def test_the_messages_are_tritons() -> None:
    pool = theirs.DESCRIPTOR.pool
    messages: dict[str, Any] = dict(MESSAGES)
    for message in messages.values():
        ours = message.DESCRIPTOR
        known = pool.FindMessageTypeByName(ours.full_name)
        for field in ours.fields:
            if field.full_name == "inference.ModelMetadataResponse.parameters":
                continue  # MLServer's: Triton has no such field, and its clients pass over it
            other = known.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                assert field.message_type.full_name == other.message_type.full_name
            if field.enum_type is not None:
                wanted = {value.name: value.number for value in other.enum_type.values}
                assert {value.name: value.number for value in field.enum_type.values} == wanted
    assert model_config_pb2.DESCRIPTOR.package == "inference"


@pytest.mark.parametrize("dtype", sorted(NAMES))
def test_every_dtype_as_bytes_both_ways(dtype: str) -> None:
    array = values(dtype)
    response = answer(ask(face(("x", dtype, (2,))), request({"x": array}, id="an id")))
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "an id")
    assert same(arrays_of(response)["x"], array)


@pytest.mark.parametrize("dtype", sorted(FIELDS))
def test_every_dtype_that_has_typed_contents(dtype: str) -> None:
    array = values(dtype)
    assert same(arrays_of(answer(ask(face(("x", dtype, (2,))), request({"x": array}, typed=True))))["x"], array)


def test_bytes_are_not_copied() -> None:
    message = request({"x": np.ones((4, 2), np.float32)}).SerializeToString()
    (rows,) = infer_question(PAIR, read_infer(message), OPTIONS).items
    assert isinstance(rows, Rows)
    assert np.shares_memory(rows.arrays["x"], np.frombuffer(message, np.uint8))


def test_several_inputs_and_the_outputs_that_are_asked() -> None:
    arrays = {"a": values("int64"), "b": values("string"), "c": values("bfloat16")}
    model = face(("a", "int64", (2,)), ("b", "string", (2,)), ("c", "bfloat16", (2,)))
    outputs = [theirs.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("c", "a")]
    found = arrays_of(answer(ask(model, request(arrays, outputs=outputs))))
    assert list(found) == ["c", "a"]
    assert all(same(found[name], arrays[name]) for name in found)


@pytest.mark.parametrize("typed", [True, False])
def test_no_rows_at_all(typed: bool) -> None:
    response = answer(ask(PAIR, request({"x": np.empty((0, 2), np.float32)}, typed)))
    assert arrays_of(response)["x"].shape == (0, 2)


def test_the_best_classes() -> None:
    made = request({"x": np.array([[0.25, 7]], np.float32)})
    made.outputs.add(name="x").parameters["classification"].int64_param = 1
    response = answer(ask(PAIR, made))
    assert response.outputs[0].datatype == "BYTES"
    assert arrays_of(response)["x"].tolist() == [[b"7.000000:1:dog"]]


def test_answers_are_bytes_whatever_is_asked() -> None:
    made = request({"x": np.ones((1, 2), np.float16)})
    made.outputs.add(name="x").parameters["binary_data"].bool_param = False
    assert arrays_of(answer(ask(face(("x", "float16", (2,))), made)))["x"].tolist() == [[1, 1]]


def test_priority_and_timeout() -> None:
    made = request({"x": np.ones((1, 2), np.float32)})
    made.parameters["priority"].uint64_param = 2
    made.parameters["timeout"].int64_param = 1500
    made.parameters["other"].string_param = "passes"
    made.parameters["half"].double_param = 0.5
    options = ask(PAIR, made).options
    assert (options.priority, options.timeout) == (Priority.BULK, 0.0015)
    made.parameters["timeout"].int64_param = -1
    assert refused(PAIR, made).status == 400


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_typed_contents_of_any_numbers_come_back(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["int8", "int32", "int64", "uint16", "uint64"]))
    info = np.iinfo(dtype)
    numbers = data.draw(st.lists(st.integers(int(info.min), int(info.max)), max_size=20))
    array = np.array(numbers, dtype).reshape(-1, 1)
    assert same(arrays_of(answer(ask(face(("x", dtype, (1,))), request({"x": array}, typed=True))))["x"], array)


def changed(change: Any, typed: bool = False) -> Any:
    made = request({"x": np.ones((1, 2), np.float32)}, typed)
    change(made)
    return made


@pytest.mark.parametrize(
    ("typed", "change", "told"),
    [
        (
            False,
            lambda m: m.inputs[0].contents.fp32_contents.append(1),
            "contents field must not be specified when using",
        ),
        (False, lambda m: m.raw_input_contents.append(b""), "1 inputs but 2 raw_input_contents"),
        (
            False,
            lambda m: m.raw_input_contents.__setitem__(0, b"123"),
            "input byte size mismatch for input 'x'. Expected 8",
        ),
        (False, lambda m: m.inputs.add(name="x"), "2 inputs but 1 raw_input_contents"),
        (False, lambda m: setattr(m.inputs[0], "name", "y"), "unexpected inference input 'y' for model 'm'"),
        (
            False,
            lambda m: setattr(m.inputs[0], "datatype", "INT32"),
            "unexpected data-type for input 'x' for model 'm'",
        ),
        (False, lambda m: setattr(m.inputs[0], "datatype", ""), "there is no datatype ''"),
        (False, lambda m: m.inputs[0].shape.append(1), "unexpected shape for input 'x' for model 'm'"),
        (False, lambda m: m.inputs[0].shape.__setitem__(0, -1), "Unable to parse 'shape'"),
        (False, lambda m: m.inputs[0].shape.__setitem__(0, 10**12), "input byte size mismatch"),
        (False, lambda m: m.inputs[0].shape.extend([1] * 60), "62 dimensions"),
        (False, lambda m: m.inputs[0].shape.extend([1] * 70), "more than 64 dimensions"),
        (False, lambda m: m.outputs.add(name="z"), "unexpected inference output 'z' for model 'm'"),
        (False, lambda m: (m.outputs.add(name="x"), m.outputs.add(name="x")), "output 'x' already exists in request"),
        (True, lambda m: m.inputs[0].contents.fp32_contents.append(1), "expecting 2 for the shape [1, 2], got 3"),
        (True, lambda m: m.inputs[0].contents.int_contents.append(1), "its contents are not of FP32"),
        (
            True,
            lambda m: setattr(m.inputs[0], "datatype", "FP16"),
            "FP16 has no typed contents; use raw_input_contents",
        ),
        (True, lambda m: m.inputs[0].ClearField("contents"), "expecting 2 for the shape [1, 2], got 0"),
        (True, lambda m: m.inputs.append(m.inputs[0]), "input 'x' already exists in request"),
        (True, lambda m: m.ClearField("inputs"), "missing required input 'x'"),
    ],
)
def test_what_is_wrong_is_said(typed: bool, change: Any, told: str) -> None:
    problem = refused(PAIR, changed(change, typed))
    assert problem.status == 400
    assert told in problem.detail


def test_a_number_that_does_not_fit_its_datatype() -> None:
    made = theirs.ModelInferRequest(model_name="m")
    made.inputs.append(theirs.ModelInferRequest.InferInputTensor(name="x", datatype="INT8", shape=[1, 1]))
    made.inputs[0].contents.int_contents.append(200)
    assert "does not fit into int8" in refused(face(("x", "int8", (1,))), made).detail


def test_shared_memory_is_not_supported() -> None:
    made = request({"x": np.ones((1, 2), np.float32)})
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert refused(PAIR, made).status == 501
    made = request({"x": np.ones((1, 2), np.float32)})
    made.outputs.add(name="x").parameters["shared_memory_region"].string_param = "r"
    assert refused(PAIR, made).status == 501


def test_small_requests() -> None:
    assert read_names("ModelReadyRequest", theirs.ModelReadyRequest(name="m", version="2").SerializeToString()) == (
        "m",
        "2",
    )
    assert read_names("ModelConfigRequest", b"") == ("", "")
    assert read_only_ready(theirs.RepositoryIndexRequest(ready=True).SerializeToString())
    assert not read_only_ready(b"")
    for read in (lambda raw: read_names("ModelReadyRequest", raw), read_only_ready, read_infer):
        with pytest.raises(Problem, match="cannot be read as an inference"):
            read(b"\x0a\xff")


def test_ten_thousand_mutated_messages_are_read_or_refused() -> None:
    chance = random.Random(21)
    raw = request({"h": np.array([[1, 2]], ml_dtypes.bfloat16), "s": np.array([b"word"], object), "i": np.array([7])})
    raw.outputs.add(name="i").parameters["classification"].int64_param = 2
    raw.parameters["timeout"].int64_param = 7
    three = face(("h", "bfloat16", (2,)), ("s", "string", ()), ("i", "int64", ()))
    typed = request({"a": np.array([[-3, 500]]), "b": np.array([[0.5]]), "c": np.array([[b"abc"]], object)}, typed=True)
    others = face(("a", "int64", (2,)), ("b", "float64", (1,)), ("c", "string", (1,)))
    read, seen = 0, set()
    for turn in range(MUTATIONS):
        model, made = [(three, raw), (others, typed)][turn % 2]
        body = bytearray(made.SerializeToString())
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(body))
            match chance.randrange(4):
                case 0 | 1:
                    body[at] = chance.randrange(256)
                case 2:
                    del body[at : at + chance.randint(1, 8)]
                case _:
                    body[at:at] = body[at : at + chance.randint(1, 20)]
        try:
            answer(ask(model, bytes(body)))
            read += 1
        except Problem as problem:
            seen.add(problem.status)
    assert seen <= {400, 501}
    assert read > 500
