from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.rows import RowLayout, Rows, array_bytes
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.grpc_status import grpc_fault
from rowserve.handlers.items import Answer, ModelFace, Options, Outcome, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensor_protos import NUMBERS, Budget, read_tensor, tensor_parts
from rowserve.handlers.tensorflow_messages import (
    ClassificationRequest,
    ClassificationResponse,
    Example,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    InferenceResult,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictRequest,
    PredictResponse,
    RegressionResponse,
    SignatureDefMap,
    TensorProto,
)
from rowserve.handlers.tensorflow_serving_grpc import predict_question, read_predict
from rowserve.handlers.tensorflow_serving_grpc_examples import (
    CLASSIFY,
    REGRESS,
    Task,
    examples_question,
    join_results,
    read_request,
    read_tasks,
)
from rowserve.handlers.tensorflow_serving_grpc_models import (
    encode_metadata,
    encode_status,
    read_metadata_request,
    read_status_request,
)
from rowserve.handlers.tensorflow_serving_models import VersionState
from tests.mutations import MUTATIONS

ROOM = 1 << 20
OPTIONS = Options()
X, Y = TensorSpec("x", "float32", (2,)), TensorSpec("y", "float32", (2,))
EXAMPLES = TensorSpec("inputs", "string", ())
SIGNATURES = {
    "serving_default": Signature("serving_default", (X,), (Y, TensorSpec("z", "string", ()))),
    "two": Signature("two", (TensorSpec("a", "int64", (None,)), TensorSpec("b", "string", (), batched=False)), (Y,)),
    **{f"same_{name}": Signature(f"same_{name}", (TensorSpec("x", name, None),), (Y,)) for name in NUMBERS},
    "classes": Signature(
        "classes", (EXAMPLES,), (TensorSpec("classes", "string", (2,)), TensorSpec("scores", "float32", (2,)))
    ),
    "scores": Signature("scores", (EXAMPLES,), (TensorSpec("scores", "float32", (2,)),)),
    "value": Signature("value", (EXAMPLES,), (TensorSpec("outputs", "float32", ()),), batch=3),
}
FACE = ModelFace("m", 7, SIGNATURES)


def proto(array: Any) -> Any:
    return TensorProto.FromString(b"".join(tensor_parts(np.asarray(array))))


def request(*, outputs: Any = (), signature: str = "", spec: Any = None, **inputs: Any) -> bytes:
    """A PredictRequest as protobuf writes it."""
    return PredictRequest(
        model_spec=spec or {"name": "m", "signature_name": signature},
        inputs={name: proto(value) for name, value in inputs.items()},
        output_filter=outputs,
    ).SerializeToString()


def ask(message: bytes) -> Question[bytes]:
    return predict_question(FACE, read_predict(message), OPTIONS, ROOM)


def answer(signature: Signature, **outputs: Any) -> Answer:
    layout = RowLayout(signature.outputs)
    arrays = {spec.name: np.asarray(outputs[spec.name], spec.numpy_dtype) for spec in signature.outputs}
    count = len(next(iter(arrays.values())))
    return Answer(layout, [*layout.pack(arrays, count)], [Outcome.HIT] * count)


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """The code and the message."""
    with pytest.raises(Problem) as caught:
        call()
    return grpc_fault(caught.value)


def rows(question: Question[bytes]) -> Rows:
    (item,) = question.items
    assert isinstance(item, Rows)
    return item


# Predict


def test_tensors_become_rows_and_rows_tensors() -> None:
    question = ask(request(x=np.array([[1, 2], [3, 4]], np.float32)))
    assert rows(question).count == 2
    assert rows(question).arrays["x"].tolist() == [[1, 2], [3, 4]]
    written = question.encode(answer(question.signature, y=[[5, 6], [7, 8]], z=[b"a\0", b"\xff"]))
    response = PredictResponse.FromString(written)
    assert response.model_spec.name == "m"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "serving_default"
    assert response.outputs["y"].float_val == [5, 6, 7, 8]
    assert response.outputs["y"].tensor_content == b""
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [2, 2]
    assert response.outputs["z"].string_val == [b"a\0", b"\xff"]
    assert response.SerializeToString(deterministic=True) == PredictResponse(
        outputs={name: response.outputs[name] for name in ("y", "z")}, model_spec=response.model_spec
    ).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_dtype_is_taken(name: str) -> None:
    spec = SIGNATURES[f"same_{name}"].inputs[0]
    values = [[b"a\0b", b"\xff", b""]] if name == "string" else [[0, 1, 2]]
    array = np.array(values).astype(spec.numpy_dtype)
    taken = rows(ask(request(signature=f"same_{name}", x=array))).arrays["x"]
    assert taken.dtype == array.dtype
    assert taken.tolist() == array.tolist()


def test_several_inputs_and_one_that_all_rows_share() -> None:
    question = ask(request(signature="two", a=np.array([[1], [2]]), b=np.array(b"s", object)))
    assert rows(question).arrays["a"].tolist() == [[1], [2]]
    assert rows(question).static["b"].item() == b"s"


def test_an_empty_batch_has_empty_tensors() -> None:
    question = ask(request(x=np.zeros((0, 2), np.float32)))
    assert rows(question).count == 0
    empty = Answer(RowLayout(question.signature.outputs), [], [])
    response = PredictResponse.FromString(question.encode(empty))
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [0, 2]
    assert not response.outputs["y"].float_val


def test_an_output_filter_chooses_the_outputs() -> None:
    question = ask(request(outputs=["z"], x=np.zeros((1, 2), np.float32)))
    response = PredictResponse.FromString(question.encode(answer(question.signature, y=[[1, 2]], z=[b"q"])))
    assert list(response.outputs) == ["z"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_answer_of_one_output_is_its_rows(count: int) -> None:
    question = ask(request(signature="same_float32", x=np.zeros((count, 2), np.float32)))
    y = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    written = question.encode(answer(question.signature, y=y))
    response = PredictResponse.FromString(written)
    assert response.outputs["y"] == proto(y)
    assert response.SerializeToString() == written


def test_a_bad_row_of_one_output_is_the_answers_error() -> None:
    question = ask(request(signature="same_float32", x=np.zeros((2, 2), np.float32)))
    failed = answer(question.signature, y=np.zeros((2, 2)))
    failed.packed[0], failed.errors[0] = None, Problem(504, "late")
    assert refused(lambda: question.encode(failed)) == ("DEADLINE_EXCEEDED", "late")


def test_the_first_bad_row_is_the_answers_error() -> None:
    question = ask(request(x=np.zeros((2, 2), np.float32)))
    failed = answer(question.signature, y=[[1, 2], [3, 4]], z=[b"", b""])
    failed.packed[1], failed.errors[1] = None, Problem(422, "the model refused this row")
    assert refused(lambda: question.encode(failed)) == ("INVALID_ARGUMENT", "the model refused this row")


@pytest.mark.parametrize(
    ("spec", "version", "label"),
    [
        ({"name": "m"}, None, None),
        ({"name": "m", "version": {"value": 3}}, 3, None),
        ({"name": "m", "version": {"value": 0}}, 0, None),
        ({"name": "m", "version": {"value": -1}}, -1, None),
        ({"name": "m", "version_label": "stable"}, None, "stable"),
    ],
)
def test_a_version_is_a_number_or_a_label(spec: Any, version: int | None, label: str | None) -> None:
    asked = read_predict(request(spec=spec)).spec
    assert (asked.name, asked.version, asked.label) == ("m", version, label)


ONE = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        (b"", "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(spec={"signature_name": "x"}), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (request(signature="no", x=ONE), "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        (
            request(),
            "INVALID_ARGUMENT",
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            request(x=ONE, b=ONE, a=ONE),
            "INVALID_ARGUMENT",
            "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). Sent extra: {a,b}. Missing but req",
        ),
        (
            request(w=ONE),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: w. Inputs expected to be in the set {x}.",
        ),
        (
            request(x=ONE, outputs=["q"]),
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q Outputs expected to be in the set {y,z}.",
        ),
        (request(x=ONE, outputs=["y", "y"]), "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
        (request(x=ONE.astype(np.float64)), "INVALID_ARGUMENT", "input 'x' takes float32, not float64"),
        (request(x=np.zeros((1, 3), np.float32)), "INVALID_ARGUMENT", "input 'x' takes the shape [-1, 2], not [1, 3]"),
        (request(x=np.float32(1)), "INVALID_ARGUMENT", "input 'x' takes the shape [-1, 2], not a scalar"),
        (request(x=ONE)[:-3], "INVALID_ARGUMENT", "the request cannot be read as a tensorflow.serving.PredictRequest"),
        (b"\x1a\x01\xff", "INVALID_ARGUMENT", "the request cannot be read as a tensorflow.serving.PredictRequest"),
        (b"\x1a\x00" * 5000, "INVALID_ARGUMENT", "the request cannot be read as a tensorflow.serving.PredictRequest"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",  # the bytes of a map come in any order
)
def test_a_request_that_does_not_fit_is_refused_in_its_words(message: bytes, code: str, told: str) -> None:
    found = refused(lambda: ask(message))
    assert found[0] == code
    assert found[1].startswith(told)


def test_a_tensor_that_cannot_be_read_is_named() -> None:
    short = PredictRequest(model_spec={"name": "m"})
    short.inputs["x"].CopyFrom(TensorProto(dtype=1, tensor_content=b"abc"))
    code, told = refused(lambda: ask(short.SerializeToString()))
    assert (code, told.partition(": ")[2][:3]) == ("INVALID_ARGUMENT", "x: ")
    assert told.startswith("tensor parsing error: x")
    huge = TensorProto(dtype=1, tensor_shape={"dim": [{"size": 10**12}]}, float_val=[1])
    short.inputs["x"].CopyFrom(huge)
    assert refused(lambda: ask(short.SerializeToString()))[0] == "RESOURCE_EXHAUSTED"


def test_claims_are_added_up_over_all_inputs() -> None:
    half = TensorProto(dtype=9, tensor_shape={"dim": [{"size": 1}, {"size": ROOM // 16 + 2}]}, int64_val=[1])
    claims = PredictRequest(model_spec={"name": "m", "signature_name": "two"})
    claims.inputs["a"].CopyFrom(half)
    claims.inputs["b"].CopyFrom(half)
    assert refused(lambda: ask(claims.SerializeToString()))[0] == "RESOURCE_EXHAUSTED"


# Classify, Regress, MultiInference


def example(number: float) -> Any:
    return Example(features={"feature": {"n": {"float_list": {"value": [number]}}}})


def raw(number: float) -> bytes:
    data: bytes = example(number).SerializeToString()
    return data


def examples_message(*numbers: float, context: bytes | None = None, signature: str = "classes") -> bytes:
    given: Any = {"example_list": {"examples": [raw(number) for number in numbers]}}
    if context is not None:
        given = {"example_list_with_context": {"examples": given["example_list"]["examples"], "context": context}}
    spec = {"name": "m", "signature_name": signature}
    return ClassificationRequest(model_spec=spec, input=given).SerializeToString()


def inference(method: str, message: bytes, response: Any) -> Question[bytes]:
    task, examples = read_request(method, message, ROOM)
    return examples_question(FACE, task, examples, OPTIONS, response)


def test_examples_are_classified() -> None:
    question = inference(CLASSIFY, examples_message(1, 2), ClassificationResponse)
    assert rows(question).arrays["inputs"].tolist() == [raw(1), raw(2)]
    scores = np.array([[0.25, 0.75], [1, 0]], np.float32)
    made = answer(question.signature, classes=[[b"a", "ä".encode()], [b"c", b"d"]], scores=scores)
    response = ClassificationResponse.FromString(question.encode(made))
    told = [[(c.label, c.score) for c in each.classes] for each in response.result.classifications]
    assert told == [[("a", 0.25), ("ä", 0.75)], [("c", 1.0), ("d", 0.0)]]
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 7)
    assert response.model_spec.signature_name == "classes"


def test_without_labels_there_are_scores() -> None:
    question = inference(CLASSIFY, examples_message(1, signature="scores"), ClassificationResponse)
    response = ClassificationResponse.FromString(question.encode(answer(question.signature, scores=[[0.5, 0.25]])))
    assert [(c.label, c.score) for c in response.result.classifications[0].classes] == [("", 0.5), ("", 0.25)]


def test_examples_that_ran_alone_are_all_counted() -> None:
    question = inference(CLASSIFY, examples_message(1, 2, 3, signature="scores"), ClassificationResponse)
    specs = (TensorSpec("scores", "float32", (None, 2), batched=False),)
    packed = RowLayout(specs).pack({"scores": np.arange(6, dtype=np.float32).reshape(1, 3, 2)}, 1)
    whole = Answer(RowLayout(specs), list(packed), [Outcome.BYPASSED], alone=True)
    found = ClassificationResponse.FromString(question.encode(whole))
    assert [[c.score for c in each.classes] for each in found.result.classifications] == [[0, 1], [2, 3], [4, 5]]


def test_examples_are_regressed() -> None:
    question = inference(REGRESS, examples_message(1, 2, signature="value"), RegressionResponse)
    response = RegressionResponse.FromString(question.encode(answer(question.signature, outputs=[1.5, 2.5])))
    assert [each.value for each in response.result.regressions] == [1.5, 2.5]


def test_a_context_is_merged_into_every_example() -> None:
    context = Example(features={"feature": {"c": {"int64_list": {"value": [9]}}}}).SerializeToString()
    question = inference(CLASSIFY, examples_message(1, 2, context=context), ClassificationResponse)
    for number, data in zip((1, 2), rows(question).arrays["inputs"], strict=True):
        merged = Example.FromString(data)
        assert merged.features.feature["c"].int64_list.value == [9]
        assert merged.features.feature["n"].float_list.value == [number]


def test_a_context_times_its_examples_has_a_bound() -> None:
    message = examples_message(*[1] * 100, context=b"\x0a\x00" * (ROOM // 100))
    assert refused(lambda: read_request(CLASSIFY, message, ROOM))[0] == "RESOURCE_EXHAUSTED"


def test_of_two_inputs_the_last_counts() -> None:
    both = examples_message(1) + examples_message(2, context=b"")
    assert read_request(CLASSIFY, both, ROOM)[1] == [raw(2)]


def tasks_message(*tasks: tuple[str, str, str], numbers: Any = (1,)) -> bytes:
    told = [
        {"model_spec": {"name": name, "signature_name": signature}, "method_name": method}
        for name, signature, method in tasks
    ]
    given = {"example_list": {"examples": [raw(number) for number in numbers]}}
    return MultiInferenceRequest(tasks=told, input=given).SerializeToString()


def test_several_tasks_share_their_examples() -> None:
    tasks, examples = read_tasks(tasks_message(("m", "classes", CLASSIFY), ("m", "value", REGRESS)), ROOM)
    outputs: list[Any] = [{"classes": [[b"a", b"b"]], "scores": [[1, 2]]}, {"outputs": [3.0]}]
    parts = []
    for task, values in zip(tasks, outputs, strict=True):
        question = examples_question(FACE, task, examples, OPTIONS, InferenceResult)
        parts.append(question.encode(answer(question.signature, **values)))
    one, two = MultiInferenceResponse.FromString(join_results(parts)).results
    assert one.classification_result.classifications[0].classes[1].label == "b"
    assert two.regression_result.regressions[0].value == 3.0
    assert [each.model_spec.signature_name for each in (one, two)] == ["classes", "value"]


@pytest.mark.parametrize(
    ("message", "code", "told"),
    [
        (tasks_message(), "INVALID_ARGUMENT", "Inference request must have at least one task"),
        (tasks_message(("", "a", CLASSIFY)), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (tasks_message(("m", "a", CLASSIFY), ("n", "b", CLASSIFY)), "INVALID_ARGUMENT", "All ModelSpecs in a Multi"),
        (tasks_message(("m", "a", CLASSIFY), ("m", "a", REGRESS)), "INVALID_ARGUMENT", "Duplicate evaluation of"),
        (tasks_message(("m", "", "tensorflow/serving/predict")), "UNIMPLEMENTED", "Unsupported signature method_name"),
        (tasks_message(("m", "a", CLASSIFY), numbers=()), "INVALID_ARGUMENT", "Input is empty."),
        (tasks_message(*[("m", str(at), CLASSIFY) for at in range(100)]), "INVALID_ARGUMENT", "the request cannot be"),
        (b"\x0a\x05abc", "INVALID_ARGUMENT", "the request cannot be read"),
    ],
)
def test_tasks_that_cannot_be_are_refused(message: bytes, code: str, told: str) -> None:
    found = refused(lambda: read_tasks(message, ROOM))
    assert found[0] == code
    assert found[1].startswith(told)


@pytest.mark.parametrize(
    ("method", "signature", "code", "told"),
    [
        (CLASSIFY, "no", "FAILED_PRECONDITION", "Serving signature key"),
        (CLASSIFY, "serving_default", "INVALID_ARGUMENT", "No classification inputs found"),
        (REGRESS, "serving_default", "INVALID_ARGUMENT", "No regression inputs found"),
        (CLASSIFY, "two", "INVALID_ARGUMENT", "Expected one input Tensor."),
        (CLASSIFY, "value", "INVALID_ARGUMENT", "Expected classification signature outputs to contain"),
        (REGRESS, "classes", "INVALID_ARGUMENT", "Expected one output Tensor."),
        (REGRESS, "scores", "INVALID_ARGUMENT", "No regression outputs found"),
    ],
)
def test_a_signature_of_another_kind_is_refused(method: str, signature: str, code: str, told: str) -> None:
    task = Task(read_predict(request(signature=signature)).spec, method)
    found = refused(lambda: examples_question(FACE, task, [b""], OPTIONS, InferenceResult))
    assert found[0] == code
    assert found[1].startswith(told)


# Models


def test_signatures_are_told() -> None:
    wanted = GetModelMetadataRequest(model_spec={"name": "m"}, metadata_field=["signature_def"])
    assert read_metadata_request(wanted.SerializeToString()).name == "m"
    response = GetModelMetadataResponse.FromString(encode_metadata(FACE))
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 7)
    held = response.metadata["signature_def"]
    assert held.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    told = SignatureDefMap.FromString(held.value).signature_def
    assert set(told) == set(SIGNATURES)
    x = told["serving_default"].inputs["x"]
    assert (x.name, x.dtype, [dim.size for dim in x.tensor_shape.dim]) == ("x:0", 1, [-1, 2])
    assert [dim.size for dim in told["value"].inputs["inputs"].tensor_shape.dim] == [3]
    assert told["same_int64"].inputs["x"].tensor_shape.unknown_rank
    assert [dim.size for dim in told["two"].inputs["b"].tensor_shape.dim] == []


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "Missing ModelSpec"),
        ({"model_spec": {"name": "m"}}, "GetModelMetadataRequest must specify at least one metadata_field"),
        ({"model_spec": {"name": "m"}, "metadata_field": ["x"]}, "Metadata field x is not supported"),
    ],
)
def test_other_metadata_is_refused(wanted: Any, told: str) -> None:
    message = GetModelMetadataRequest(**wanted).SerializeToString()
    assert refused(lambda: read_metadata_request(message)) == ("INVALID_ARGUMENT", told)


def test_states_are_told_the_highest_version_first() -> None:
    assert read_status_request(GetModelStatusRequest(model_spec={"name": "m"}).SerializeToString()).name == "m"
    states = [VersionState(1, "END", "UNKNOWN", "why"), VersionState(2)]
    told = GetModelStatusResponse.FromString(encode_status(states)).model_version_status
    assert [(each.version, each.state, each.status.error_code) for each in told] == [(2, 30, 0), (1, 50, 2)]
    assert told[1].status.error_message == "why"


# Whatever comes


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in READERS:
        try:
            read(data)
        except Problem as problem:
            assert problem.status in (400, 413, 501)  # noqa: PT017


def whole(question: Question[bytes]) -> None:
    assert sum(array_bytes(array) for array in rows(question).arrays.values()) <= 2 * ROOM


READERS: list[Callable[[bytes], Any]] = [
    lambda data: whole(ask(data)),
    lambda data: whole(inference(CLASSIFY, data, ClassificationResponse)),
    lambda data: whole(inference(REGRESS, data, RegressionResponse)),
    lambda data: read_tasks(data, ROOM),
    read_metadata_request,
    read_status_request,
    lambda data: read_tensor(memoryview(data), Budget(ROOM)),
]
WHOLE = [
    (0, request(x=np.array([[1, 2], [3, 4]], np.float32), outputs=["z"])),
    (0, request(signature="two", a=np.array([[1], [200]]), b=np.array(b"s", object))),
    (0, request(signature="same_string", x=np.array([[b"a", b"b\0"]], object), spec=None)),
    (1, examples_message(1, 2)),
    (1, examples_message(1, 2, context=raw(3))),
    (2, examples_message(1, 2, signature="value")),
    (3, tasks_message(("m", "classes", CLASSIFY), ("m", "value", REGRESS))),
    (4, GetModelMetadataRequest(model_spec={"name": "m"}, metadata_field=["signature_def"]).SerializeToString()),
    (5, GetModelStatusRequest(model_spec={"name": "m", "version": {"value": 3}}).SerializeToString()),
]


def test_damaged_requests_are_read_or_refused() -> None:
    chance = random.Random(5)
    refusals = 0
    for _ in range(MUTATIONS):
        reader, message = chance.choice(WHOLE)
        data = bytearray(message)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 5))
                case _:
                    del data[at : at + chance.randrange(1, 5)]
        try:
            READERS[reader](bytes(data))
        except Problem as problem:
            assert problem.status in (400, 413, 501)  # noqa: PT017
            refusals += 1
    assert 0.3 * MUTATIONS < refusals < MUTATIONS
