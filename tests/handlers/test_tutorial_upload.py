"""The tutorial's upload: pictures in, pairs out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from rowserve.graphs.rows import RowLayout
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, Encoded, Labels, ModelFace, Outcome, Picture, Question
from rowserve.handlers.multipart import Part
from rowserve.handlers.problem import Problem
from rowserve.handlers.tutorial_upload import encode_fault, read_upload
from tests.http_doubles import LengthDecoder

SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", "float32", (2,)),),
    (TensorSpec("other", "int64", ()), TensorSpec("scores", "float32", (7,))),
)
LABELS = Labels("scores", ["a", "b", "c", "d", "e", "f"])
DECODER = LengthDecoder()


def face(labels: Labels | None = LABELS, decoder: Any = DECODER) -> ModelFace:
    return ModelFace("m", 1, {"serving_default": SIGNATURE}, labels, {"serving_default": decoder})


def file(data: bytes, name: str = "data", filename: str = "cat.jpg") -> Part:
    return Part(name, filename, "image/jpeg" if filename else "", data)


def read(*parts: Part, model: ModelFace | None = None, **headers: str) -> Question[Encoded]:
    return read_upload(model or face(), headers, parts)


def uploads(question: Question[Encoded]) -> list[bytes]:
    return [bytes(item.upload) for item in question.items if isinstance(item, Picture)]


def answer(*scores: list[float]) -> Answer:
    layout = RowLayout(SIGNATURE.outputs)
    arrays: dict[str, Any] = {"other": np.zeros(len(scores), np.int64), "scores": np.array(scores, np.float32)}
    return Answer(layout, [*layout.pack(arrays, len(scores))], [Outcome.COMPUTED] * len(scores))


FIRST = [0, 1, 2, 3, 4, 5, 0.5]
SECOND = [9, 8, 7, 6, 5, 4, float("nan")]


def test_one_picture_gets_a_flat_list_of_pairs():
    question = read(file(b"one"))
    assert (uploads(question), question.options.protocol) == ([b"one"], "tutorial")
    encoded = question.encode(answer(FIRST))
    assert orjson.loads(encoded.body) == [["f", 5.0], ["e", 4.0], ["d", 3.0], ["c", 2.0], ["b", 1.0]]
    headers = dict(encoded.headers)
    assert (encoded.status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Status"].startswith("rowserve; fwd=miss")


def test_several_pictures_get_a_list_each():
    question = read(file(b"one"), file(b"two", "other"))
    assert uploads(question) == [b"one", b"two"]
    first, second = orjson.loads(question.encode(answer(FIRST, SECOND)).body)
    assert (first[0], second[0]) == (["f", 5.0], ["a", 9.0])


def test_data_is_a_picture_without_a_file_name_too():
    assert uploads(read(file(b"one", filename=""), file(b"no", "comment", ""))) == [b"one"]


def test_a_class_without_a_label_is_null():
    assert orjson.loads(read(file(b"one")).encode(answer([0, 0, 0, 0, 0, 0, 1])).body)[0] == [None, 1.0]


def test_an_empty_part_is_an_error_of_its_row():
    assert isinstance(read(file(b"")).items[0], Problem)


@pytest.mark.parametrize(
    ("model", "parts", "status", "words"),
    [
        (face(), [file(b"x", "comment", "")], 400, "no picture; send one as data"),
        (face(labels=None), [file(b"x")], 422, "POST /images/m"),
        (face(labels=Labels("elsewhere", ["a"])), [file(b"x")], 422, "no labels"),
        (face(decoder=Problem(422, "its card has no [picture]")), [file(b"x")], 422, "no [picture]"),
    ],
)
def test_what_cannot_be_answered_is_told(model, parts, status, words):
    with pytest.raises(Problem) as caught:
        read(*parts, model=model)
    assert caught.value.status == status
    assert words in caught.value.detail


def test_a_picture_that_fails_fails_the_request():
    made = answer(FIRST, SECOND)
    made.packed[0], made.errors[0] = None, Problem(422, "this is no picture")
    with pytest.raises(Problem, match="this is no picture"):
        read(file(b"one"), file(b"two")).encode(made)


def test_a_fault():
    encoded = encode_fault(Problem(503, "busy", retry_after=2))
    assert (encoded.status, orjson.loads(encoded.body)) == (503, {"error": "busy"})
    assert dict(encoded.headers)["Retry-After"] == "2"
