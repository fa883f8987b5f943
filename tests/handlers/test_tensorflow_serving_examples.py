"""TensorFlow Serving's classify and regress: examples to bytes that are always the same, its rules and its words."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.rows import Buffer, RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, ModelFace, Outcome
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_messages import Example
from rowserve.handlers.tensorflow_serving_examples import ExamplesRequest, encode_results, read_examples, serialized
from tests.mutations import MUTATIONS

TEXTS = (TensorSpec("inputs", "string", ()),)
CLASSES, SCORES = TensorSpec("classes", "string", (2,)), TensorSpec("scores", "float32", (2,))
VALUES = TensorSpec("outputs", "float32", (1,))
ROOM = 1 << 20


def signature(name: str, *outputs: TensorSpec, **more: Any) -> Signature:
    return Signature(name, more.pop("inputs", TEXTS), outputs, **more)


FACE = ModelFace(
    "m",
    1,
    {
        "serving_default": signature("serving_default", CLASSES, SCORES),
        "scores": signature("scores", SCORES),
        "value": signature("value", VALUES),
        "numbers": signature("numbers", SCORES, inputs=(TensorSpec("inputs", "float32", ()),)),
    },
)


def read(document: Any, verb: str = "classify", room: int = ROOM) -> ExamplesRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_examples(FACE, verb, body, room)


def examples(document: Any) -> list[bytes]:
    (rows,) = read(document).items
    assert rows.count == len(rows.arrays["inputs"])
    return list(rows.arrays["inputs"])


def features(text: bytes) -> dict[str, tuple[str | None, list[Any]]]:
    """What stands in an Example's bytes: kind and values by name."""
    found = {}
    for name, feature in Example.FromString(text).features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = (kind, list(getattr(feature, kind).value) if kind else [])
    return found


def refused(document: Any, verb: str = "classify", status: int = 400, room: int = ROOM) -> str:
    with pytest.raises(Problem) as caught:
        read(document, verb, room)
    assert caught.value.status == status
    return caught.value.detail


def test_each_value_becomes_a_feature_of_its_kind():
    body = b"""{"examples": [{"i": 1, "many": [1, -2, true, false], "f": 1.5, "e": 1e2, "nan": [NaN, -Infinity],
               "s": "\xc3\xa9", "b": {"b64": "AP8="}, "both": ["x", {"b64": "/w=="}], "none": []}]}"""
    (text,) = examples(body)
    found = features(text)
    assert np.isnan(found.pop("nan")[1][0])
    assert found == {
        "i": ("int64_list", [1]),
        "many": ("int64_list", [1, -2, 1, 0]),
        "f": ("float_list", [1.5]),
        "e": ("float_list", [100.0]),
        "s": ("bytes_list", ["\u00e9".encode()]),
        "b": ("bytes_list", [b"\0\xff"]),
        "both": ("bytes_list", [b"x", b"\xff"]),
        "none": (None, []),
    }


def test_equal_examples_have_equal_bytes():
    names = [f"feature_{i}" for i in range(20)]
    texts = set()
    for seed in range(10):
        random.Random(seed).shuffle(names)
        texts.add(serialized({name: len(name) for name in names}))
    assert len(texts) == 1


def test_a_context_stands_before_each_example():
    got = examples({"context": {"a": 1, "b": 2}, "examples": [{"b": 3}, {}]})
    assert [features(text) for text in got] == [
        {"a": ("int64_list", [1]), "b": ("int64_list", [3])},
        {"a": ("int64_list", [1]), "b": ("int64_list", [2])},
    ]
    assert all(text.startswith(serialized({"a": 1, "b": 2})) for text in got)


def test_a_context_times_its_examples_is_limited():
    told = refused({"context": {"a": "x" * 1000}, "examples": [{}] * 20}, status=413, room=10_000)
    assert "is more than 10,000 bytes" in told
    assert len(examples({"context": {"a": "x" * 1000}, "examples": [{}] * 5})) == 5


@given(st.lists(st.dictionaries(st.text(max_size=4), st.lists(st.integers(-9, 9), max_size=4), max_size=3), min_size=1))
def test_examples_come_back(values: list[dict[str, list[int]]]):
    got = [{name: found[1] for name, found in features(text).items()} for text in examples({"examples": values})]
    assert got == values


def test_a_large_document_gives_the_same_rows():
    values = [{"n": i, "t": "x" * (i % 50), "f": [i / 7] * (i % 5)} for i in range(5000)]
    values[77] = {"long": "y" * 200_000, "many": list(range(50_000))}
    assert examples({"examples": values}) == [serialized(value) for value in values]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "Is not object"),
        (b"{", "JSON Parse error: "),
        (b'{"examples": [' + b"{}," * 50_000, "JSON Parse error: "),
        (b'{"examples": [' + b"{}," * 50_000 + b"{]}", "JSON Parse error: "),
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": []}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"a": None}]}, "Feature: a has element with unexpected JSON type: Null"),
        ({"examples": [{"a": [[1]]}]}, "Feature: a has element with unexpected JSON type: Array"),
        ({"examples": [{"a": {"b": 1}}]}, "Feature: a has element with unexpected JSON type: Object"),
        ({"examples": [{"a": {"b64": "!"}}]}, "Unable to base64 decode"),
        ({"examples": [{"a": [1, 1.5]}]}, "Unexpected element type in feature: a expecting type: int64"),
        ({"examples": [{"a": ["x", 1]}]}, "Unexpected element type in feature: a expecting type: bytes"),
        ({"examples": [{"a": [1.5, True]}]}, "Unexpected element type in feature: a expecting type: float"),
        ({"examples": [{"a": 2**63}]}, "Feature: a has uint64 element. Only int64 is supported."),
        ({"examples": [{"a": 1e39}]}, "is not of expected type: float"),
        ({"examples": [{"a": "\ud800"}]}, "is no valid Unicode"),
        ({"examples": [{"\ud800": 1}]}, "is no valid Unicode"),
        ({"examples": [{}], "signature_name": 5}, "'signature_name' key must be a string value."),
        ({"examples": [{}], "signature_name": "no"}, "No signature was found with the name: no"),
        ({"examples": [{}], "signature_name": "value"}, "Expected classification signature outputs to contain"),
        ({"examples": [{}], "signature_name": "numbers"}, "does not take serialized Examples"),
    ],
)
def test_the_words_for_what_is_wrong(document: Any, words: str):
    assert words in refused(document)


def test_a_number_beyond_all_integers_is_a_float_as_its_parser_has_it():
    (text,) = examples({"examples": [{"a": 2**64}]})
    assert features(text) == {"a": ("float_list", [float(2**64)])}


def test_regress_needs_its_own_signature():
    assert "Expected one output Tensor." in refused({"examples": [{}]}, "regress")
    assert read({"examples": [{}], "signature_name": "value"}, "regress").signature is FACE.signatures["value"]


def told(name: str, verb: str, outputs: dict[str, Any], count: int) -> Any:
    signature = FACE.signatures[name]
    request = read({"examples": [{}] * count, "signature_name": name}, verb)
    layout = RowLayout(signature.outputs)
    packed: list[Buffer | None] = list(layout.pack(outputs, count))
    got = encode_results(request, Answer(layout, packed, [Outcome.HIT] * count))
    assert got.status == 200
    assert dict(got.headers)["Cache-Status"].startswith("rowserve; hit")
    return got.body


def objects(values: list[list[bytes]]) -> Any:
    array = np.empty((len(values), len(values[0])), dtype=object)
    array[:] = values
    return array


def test_classes_are_labels_and_scores():
    scores = np.array([[0.1, 1], [np.nan, 1e9]], np.float32)
    labels = objects([[b"no", b'"yes"'], [b"\xc3\xa9", b""]])
    body = told("serving_default", "classify", {"classes": labels, "scores": scores}, 2)
    assert b'[[["no",0.1],["\\"yes\\"",1.0]],[["\xc3\xa9",NaN],["",' in body
    assert json.loads(told("scores", "classify", {"scores": scores[:1]}, 1)) == {"results": [[["", 0.1], ["", 1.0]]]}


def test_regressions_are_numbers():
    body = told("value", "regress", {"outputs": np.array([[0.1], [2]], np.float32)}, 2)
    assert body == b'{\n    "results": [0.1,2.0]\n}'


def test_results_of_rows_that_ran_as_one():
    signature = Signature("s", TEXTS, (TensorSpec("outputs", "float32", (3,), batched=False),), alone="why")
    layout = RowLayout(signature.outputs)
    answer = Answer(layout, [np.array([1, 2, 3], np.float32).tobytes()], [Outcome.BYPASSED], alone=True)
    (rows,) = read({"examples": [{}] * 3}).items
    got = encode_results(ExamplesRequest("regress", signature, [rows]), answer)
    assert json.loads(got.body) == {"results": [1.0, 2.0, 3.0]}


def test_the_first_bad_row_is_the_answer():
    request = read({"examples": [{}]})
    answer = Answer(RowLayout(request.signature.outputs), [None], [Outcome.FAILED], {0: Problem(400, "bad example")})
    got = encode_results(request, answer)
    assert (got.status, json.loads(got.body)) == (400, {"error": "bad example"})


SEEDS = [
    b'{"signature_name": "NAME", "context": {"c": ["x"]}, "examples": [{"a": 1, "b": [1.5, 2e3]}, {"t": "\\u00e9"}]}',
    b'{"signature_name": "NAME", "examples": [{"a": {"b64": "AP8="}, "b": [true, false, -7]}], "other": [null]}',
]
WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b":",
    b"NaN",
    b"1e999",
    b"-",
    b"\\",
    b"\xff",
    b"\\ud800",
    b"null",
    b"9" * 25,
]


def spoilt(text: bytes, chance: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[at : at + chance.randint(0, 9)] = chance.choice(WORDS)
            case 1:
                del data[at : at + chance.randint(1, 9)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 20)]
    return bytes(data)


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_spoilt_requests_are_rows_or_problems(verb: str):
    chance = random.Random(verb)
    name = b"scores" if verb == "classify" else b"value"
    seeds = [seed.replace(b"NAME", name) for seed in SEEDS]
    read_ones = 0
    for _ in range(MUTATIONS):
        try:
            asked = read(spoilt(chance.choice(seeds), chance), verb)
        except Problem as problem:
            assert problem.status == 400  # noqa: PT017
        else:
            read_ones += 1
            assert asked.items[0].count == len(asked.items[0].arrays["inputs"])
    assert read_ones > 100
