"""KServe's V1 predict: what is asked, its words, and the answer; CloudEvents."""

from __future__ import annotations

import datetime
import json
import random
import uuid
from base64 import b64decode, b64encode
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.rows import RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, CachePolicy, Encoded, ModelFace, Outcome, Question
from rowserve.handlers.kserve import encode_error, model_fault, read_predict
from rowserve.handlers.problem import Problem
from tests.mutations import MUTATIONS

DEFAULT = Signature("serving_default", (TensorSpec("x", "float32", (2,)),), (TensorSpec("y", "float32", (2,)),))
WORDS = Signature("words", (TensorSpec("word", "string", ()),), (TensorSpec("said", "string", ()),))
FACE = ModelFace("m", 1, {"serving_default": DEFAULT, "words": WORDS})
STRUCTURED = {"content-type": "application/cloudevents+json"}
EVENT = {"specversion": "1.0", "source": "here", "type": "t", "id": "1", "time": "2024-01-01T00:00:00Z"}
BINARY = {"content-type": "application/json", **{f"ce-{name}": value for name, value in EVENT.items()}}


def read(body: Any, **headers: str) -> Question[Encoded]:
    return read_predict(FACE, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def arrays(body: Any, **headers: str) -> dict[str, Any]:
    (rows,) = read(body, **headers).items
    return {name: array.tolist() for name, array in rows.arrays.items()}  # type: ignore[union-attr]


def refused(body: Any, **headers: str) -> str:
    with pytest.raises(Problem) as caught:
        read(body, **headers)
    assert caught.value.status == 400
    return caught.value.detail


def answer_to(question: Question[Encoded]) -> Encoded:
    """Each row's output is its input."""
    layout = RowLayout(question.signature.outputs)
    name, output = question.signature.inputs[0].name, question.signature.outputs[0].name
    packed = [p for rows in question.items for p in layout.pack({output: rows.arrays[name]}, rows.count)]  # type: ignore[union-attr]
    return question.encode(Answer(layout, list(packed), [Outcome.HIT] * len(packed)))


def test_instances_or_inputs_and_inputs_count_where_there_are_both():
    assert arrays({"instances": [[1, 2], [3, 4]]}) == {"x": [[1, 2], [3, 4]]}
    assert arrays({"inputs": [[1, 2]]}) == {"x": [[1, 2]]}
    assert arrays({"instances": "no", "id": 1, "inputs": [[1, 2]]} | {"instances": [[5, 6]]}) == {"x": [[1, 2]]}
    assert arrays({"instances": [{"x": [1, 2]}], "unknown": None}) == {"x": [[1, 2]]}
    assert arrays({"signature_name": "words", "instances": ["a", {"b64": "AP8="}]}) == {"word": [b"a", b"\0\xff"]}


def test_an_empty_list_has_no_predictions():
    question = read({"instances": []})
    assert list(question.items) == []
    assert answer_to(question).body == b'{"predictions":[]}'


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "Unrecognized request format: "),
        (b"", "Unrecognized request format: "),
        (b'{"instances": [[NaN, 1]]}', "instances[0][0]: NaN is not allowed"),
        (b'{"instances": [[1, 2]]} more', "Unrecognized request format: "),
        ([[1, 2]], 'Expected a JSON object with "instances"'),
        ({"instances": {"x": 1}}, 'Expected "instances" to be a list'),
        ({"instances": [[1, 2]], "inputs": 1}, 'Expected "inputs" to be a list'),
        ({"rows": []}, 'Expected "instances" or "inputs" in the request'),
        ({"instances": [[1, 2]], "signature_name": 1}, 'Expected "signature_name" to be a string'),
        ({"instances": [[1, 2]], "signature_name": "z"}, "model m has no signature 'z'"),
        ({"instances": [[1, 2], [3]]}, "instances[1]: expected a list of 2, found one of 1"),
        ({"inputs": [{"z": 1}]}, "inputs[0].z: no such input"),
    ],
)
def test_faults(body, told):
    assert refused(body).startswith(told)


def test_a_long_body_is_read_as_a_short_one_is():
    rows = [[i, 0.5] for i in range(20_000)]
    assert arrays({"instances": rows}) == arrays({"instances": [{"x": row} for row in rows]}) == {"x": rows}
    assert arrays({**EVENT, "data": {"inputs": rows}}, **STRUCTURED) == {"x": rows}
    assert refused({"instances": [*rows, [1]]}).startswith("instances[20000]: expected a list of 2")
    assert refused({"inputs": [{"x": row} for row in [*rows, [1]]]}).startswith("inputs[20000].x: expected a list of 2")
    whole = json.dumps({"instances": rows}).encode()
    for broken in (whole[:-1], whole + b"]", whole[:-2], whole.replace(b"[19999,", b"[19999", 1)):
        assert refused(broken).startswith(("Unrecognized request format: ", "instances["))


def test_the_answer_is_compact_json():
    encoded = answer_to(read({"instances": [[1, 0.1]]}))
    assert (encoded.status, encoded.body) == (200, b'{"predictions":[[1.0,0.1]]}')
    assert dict(encoded.headers)["Content-Type"] == "application/json"
    assert dict(encoded.headers)["Cache-Status"] == "rowserve; hit"


def test_headers_are_wishes():
    options = read({"instances": [[1, 2]]}, **{"cache-control": "no-store", "request-timeout": "2"}).options
    assert (options.protocol, options.timeout, options.cache) == ("kserve", 2.0, CachePolicy(no_store=True))


def attributes_are_sound(told: dict[str, str]) -> None:
    assert (told["specversion"], told["source"], told["type"]) == (
        "1.0",
        "io.kserve.inference.m",
        "io.kserve.inference.response",
    )
    uuid.UUID(told["id"])
    assert datetime.datetime.fromisoformat(told["time"]).tzinfo is not None


def test_a_structured_event_is_answered_by_one():
    encoded = answer_to(read({**EVENT, "data": {"instances": [[1, 2]]}}, **STRUCTURED))
    assert dict(encoded.headers)["Content-Type"] == "application/cloudevents+json"
    told = json.loads(encoded.body)
    assert told.pop("data") == {"predictions": [[1, 2]]}
    attributes_are_sound(told)
    assert refused({**EVENT, "data": "AAAA"}, **STRUCTURED) == 'Expected a JSON object with "instances"'
    assert refused([1], **STRUCTURED) == 'Expected a JSON object with "instances"'
    assert refused({"instances": [[1, 2]]}, **STRUCTURED) == 'Expected a JSON object with "instances"'


def test_an_event_without_its_content_type_is_read_and_answered_plainly():
    encoded = answer_to(read({**EVENT, "data": {"instances": [[1, 2]]}}))
    assert encoded.body == b'{"predictions":[[1.0,2.0]]}'


def test_a_binary_event_is_answered_by_one():
    encoded = answer_to(read({"instances": [[1, 2]]}, **BINARY))
    headers = dict(encoded.headers)
    assert headers["Content-Type"] == "application/json"
    attributes_are_sound({name[3:]: value for name, value in headers.items() if name.startswith("ce-")})
    assert encoded.body == b'{"predictions":[[1.0,2.0]]}'
    plain = answer_to(read({"instances": [[1, 2]]}, **{"ce-id": "1"}))
    assert not any(name.startswith("ce-") for name, _ in plain.headers)


def test_errors():
    assert encode_error(Problem(400, "why")).body == b'{"error":"why"}'
    assert encode_error(Problem(404, "there is nothing at /v1/x")).body == b'{"detail":"Not Found"}'
    assert encode_error(Problem(405, "GET only")).body == b'{"detail":"Method Not Allowed"}'
    missing, loading = model_fault("m", Problem(404, "none")), model_fault("m", Problem(503, "loads", retry_after=1))
    assert (missing.status, encode_error(missing).body) == (404, b'{"error":"Model with name m does not exist."}')
    assert (loading.status, encode_error(loading).body) == (503, b'{"error":"Model with name m is not ready."}')
    assert ("Retry-After", "1") in encode_error(loading).headers
    assert model_fault("m", Problem(500, "x")).detail == "x"


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2)))
def test_rows_come_back_to_the_bit(rows):
    told = json.loads(answer_to(read({"instances": rows})).body)["predictions"]
    assert np.asarray(told, np.float32).tobytes() == np.asarray(rows, np.float32).tobytes()


@given(st.lists(st.binary(max_size=20)))
def test_strings_come_back_to_the_bit(words):
    sent = [{"b64": b64encode(word).decode()} for word in words]
    told = json.loads(answer_to(read({"signature_name": "words", "instances": sent})).body)["predictions"]
    assert [b64decode(each["b64"]) if isinstance(each, dict) else each.encode() for each in told] == words


VALID = [
    (json.dumps({"instances": [[1, 2.5], [-3e4, 4]]}).encode(), {}),
    (json.dumps({"signature_name": "words", "inputs": ["a", {"b64": "AP8="}]}).encode(), {}),
    (json.dumps({"instances": [{"x": [1, 2]}, {"x": [0, 0]}]}).encode(), BINARY),
    (json.dumps({**EVENT, "data": {"instances": [[1, 2]]}}).encode(), STRUCTURED),
]


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body with some bytes changed, cut out or put in."""
    text = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del text[at : at + chance.randint(1, 8)]
            case 2:
                text[at:at] = chance.choice([b"[", b"]", b"{", b"}", b",", b'"', b"1e999", b"null", b"\0", b"9" * 30])
            case _:
                text[at:at] = text[max(at - 9, 0) : at]
    return bytes(text)


def test_mutated_bodies_are_read_or_refused():
    chance = random.Random(11)
    refusals: Counter[int] = Counter()
    for turn in range(MUTATIONS):
        body, headers = VALID[turn % len(VALID)]
        try:
            question = read_predict(FACE, headers, mutated(body, chance))
            assert isinstance(question, Question)
        except Problem as problem:
            refusals[problem.status] += 1
            encode_error(problem)
    assert set(refusals) <= {400}
