"""POST /images: what is asked, and the JSON that answers it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec, numpy_dtype
from rowserve.handlers import images
from rowserve.handlers.items import Answer, Labels, ModelFace, Outcome, Picture, Timing
from rowserve.handlers.multipart import Part
from rowserve.handlers.native_json import jsonable
from rowserve.handlers.problem import Problem

PIXELS = TensorSpec("pixels", "uint8", (2, 2, 3))
SCORES = TensorSpec("scores", "float32", (4,))
BOXES = TensorSpec("boxes", "float32", (None, 2))
PLAIN = Signature("serving_default", (PIXELS,), (SCORES, TensorSpec("code", "int64", (2,))))
OTHER = Signature("boxes", (PIXELS,), (BOXES,))
LABELS = Labels("scores", ["cat", "dog", 'c"w'])


class Decoder:
    identity = b"d"

    def peak_bytes(self, upload: Buffer) -> int:
        return len(upload)

    def decode(self, upload: Buffer) -> Rows:
        raise AssertionError("handlers never decode")


DECODER = Decoder()
NO_CARD = Problem(422, "write range = [0, 1]")


def face(labels: Labels | None = LABELS, **decoders: Any) -> ModelFace:
    signatures = {"serving_default": PLAIN, "boxes": OTHER}
    return ModelFace("zoo", 3, signatures, labels, {"serving_default": DECODER, "boxes": DECODER, **decoders})


def jpg(name: str, data: bytes = b"x", field: str = "f") -> Part:
    return Part(field, name, "image/jpeg", data)


def answered(scores: Any, code: Any = None, errors: dict[int, Problem] | None = None) -> Answer:
    scores = np.asarray(scores, np.float32)
    count = len(scores)
    code = np.zeros((count, 2), np.int64) if code is None else np.asarray(code)
    layout = RowLayout(PLAIN.outputs)
    packed: list[Buffer | None] = list(layout.pack({"scores": scores, "code": code}, count))
    outcomes = [Outcome.HIT] * count
    for index in errors or {}:
        packed[index], outcomes[index] = None, Outcome.FAILED
    return Answer(layout, packed, outcomes, errors or {}, Timing(cache=0.001))


def encoded(answer: Answer, names: list[str] | None = None, model: ModelFace | None = None, **query: str) -> Any:
    model = model or face()
    _, wants, _ = images.read_query(model, {name: [value] for name, value in query.items()})
    names = names or [f"{i}.jpg" for i in range(len(answer))]
    return images.encode(model, names, answer, wants)


def rows(*args: Any, **query: Any) -> list[dict[str, Any]]:
    document = json.loads(encoded(*args, **query).body)
    assert list(document) == ["model", "version", "rows"]
    return document["rows"]  # type: ignore[no-any-return]


def bad(query: dict[str, list[str]], model: ModelFace | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        images.read_query(model or face(), query)
    return caught.value


def test_every_file_part_is_a_row_in_order():
    parts = [
        jpg("a.jpg", b"1", "any"),
        Part("note", "", "", b"hi"),
        jpg("b.jpg", b"2"),
        Part("p", "", "image/png", b"3"),
    ]
    request = images.read_form(face(), {}, parts)
    assert request.names == ["a.jpg", "b.jpg", "p"]
    assert request.items == [Picture(data, DECODER) for data in (b"1", b"2", b"3")]
    assert request.signature is PLAIN


def test_an_empty_part_is_that_rows_error():
    request = images.read_form(face(), {}, [jpg("a.jpg"), jpg("b.jpg", b"")])
    problem = request.items[1]
    assert isinstance(request.items[0], Picture)
    assert isinstance(problem, Problem)
    assert problem.status == 422


def test_a_form_without_a_file_is_400():
    with pytest.raises(Problem, match="no file part") as caught:
        images.read_form(face(), {}, [Part("top", "", "", b"5")])
    assert caught.value.status == 400
    assert "'top'" in caught.value.detail


def test_one_picture_as_the_body():
    request = images.read_body(face(), {"signature": ["boxes"]}, b"xyz")
    assert request.items == [Picture(b"xyz", DECODER)]
    assert request.signature is OTHER


def test_which_bodies_are_taken():
    assert images.is_form("Multipart/Form-Data; boundary=x")
    assert not images.is_form("image/jpeg")
    for other in ("", "application/json", "application/x-www-form-urlencoded"):
        with pytest.raises(Problem) as caught:
            images.is_form(other)
        assert caught.value.status == 415


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"signature": ["no"]}, "has no signature 'no'; it has: boxes, serving_default"),
        ({"outputs": ["scores,no"]}, "has no output 'no'; it has: scores, code"),
        ({"top": ["many"]}, "not 'many'"),
        ({"top": ["-1"]}, "not '-1'"),
        ({"top": ["1.5"]}, "not '1.5'"),
        ({"top": ["9" * 30]}, "whole number"),
        ({"top": ["1", "2"]}, "top comes 2 times"),
        ({"tpo": ["5"]}, "unknown query parameter 'tpo'; there are: top, outputs, signature"),
        ({"top": ["5"], "signature": ["boxes"]}, "none here; ask for outputs=: boxes"),
    ],
)
def test_a_wish_that_cannot_be_met_is_400_and_says_what_there_is(query: dict[str, list[str]], words: str):
    problem = bad(query)
    assert problem.status == 400
    assert words in problem.detail


def test_a_model_without_a_card_says_so():
    assert bad({}, face(serving_default=NO_CARD)) is NO_CARD
    assert bad({"signature": ["boxes"]}, ModelFace("zoo", 1, {"boxes": OTHER})).status == 422


def test_the_exact_json():
    answer = answered([[0.1, 0.7, 0.2, 0.0]])
    got = encoded(answer, ["a.jpg"], top="2")
    assert got.status == 200
    assert got.body == (
        b'{"model":"zoo","version":"3","rows":[{"name":"a.jpg","cache":"hit","top":'
        b'[{"index":1,"label":"dog","score":0.7},{"index":2,"label":"c\\"w","score":0.2}],"outputs":{}}]}'
    )
    headers = dict(got.headers)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Status"] == "rowserve; hit"
    assert headers["Server-Timing"].startswith("decode;dur=0.000, cache;dur=1.000")


def test_an_error_stands_in_its_rows_place():
    broken = Problem(422, "truncated", title="Broken picture")
    answer = answered([[0, 1, 2, 3]] * 3, errors={1: broken})
    got = encoded(answer, ["a", "b", "c"], top="1")
    assert got.status == 200
    first, second, third = json.loads(got.body)["rows"]
    assert second == {"name": "b", "error": {"status": 422, "title": "Broken picture", "detail": "truncated"}}
    assert first["top"] == third["top"] == [{"index": 3, "label": None, "score": 3.0}]


def test_the_status_is_the_first_error_where_no_row_was_answered():
    answer = answered([[0, 1, 2, 3]] * 2, errors={0: Problem(413, "large"), 1: Problem(422, "broken")})
    assert encoded(answer).status == 413


def test_top_is_five_where_there_are_labels_and_all_outputs_where_there_are_none():
    answer = answered([[0.4, 0.3, 0.2, 0.1]], [[7, 8]])
    (row,) = rows(answer)
    assert [entry["index"] for entry in row["top"]] == [0, 1, 2, 3]
    assert row["outputs"] == {}
    (row,) = rows(answer, model=face(None))
    assert "top" not in row
    assert row["outputs"] == {"scores": [0.4, 0.3, 0.2, 0.1], "code": [7, 8]}


def test_outputs_that_are_asked_for():
    for answer in (answered([[1, 2, 3, 4]], [[7, 8]]), answered([[1, 2, 3, 4]] * 3, [[7, 8]] * 3)):
        for row in rows(answer, outputs="code", top="1"):
            assert row["outputs"] == {"code": [7, 8]}
            assert row["top"][0]["index"] == 3
        for row in rows(answer, outputs="code,scores", top="0"):
            assert row["outputs"] == {"code": [7, 8], "scores": [1.0, 2.0, 3.0, 4.0]}
            assert row["top"] == []


def test_nan_and_infinity_are_null():
    (row,) = rows(answered([[np.nan, np.inf, -np.inf, 1]]), outputs="scores", top="4")
    assert row["outputs"]["scores"] == [None, None, None, 1.0]
    assert [entry["index"] for entry in row["top"]] == [1, 3, 0, 2]
    assert row["top"][0]["score"] is None


def test_a_row_reads_the_same_in_any_company():
    values = np.random.default_rng(3).random((5, 4)).astype(np.float32)
    together = rows(answered(values), ["x"] * 5, outputs="scores")
    for value, row in zip(values, together, strict=True):
        assert rows(answered(value[None]), ["x"], outputs="scores") == [row]
        assert np.array_equal(np.array(row["outputs"]["scores"], np.float32), value)


def test_strings_and_odd_dtypes():
    texts = np.empty(3, dtype=object)
    texts[:] = [b"plain", "\u00e9".encode(), b"\xff\0"]
    assert jsonable(texts) == ["plain", "\u00e9", {"b64": "/wA="}]
    assert jsonable(texts.reshape(3, 1)) == [["plain"], ["\u00e9"], [{"b64": "/wA="}]]
    for name in ("float16", "bfloat16"):
        array = np.array([1.5, -2.0]).astype(numpy_dtype(name))
        assert orjson.dumps(jsonable(array), option=orjson.OPT_SERIALIZE_NUMPY) == b"[1.5,-2.0]"
    assert jsonable(np.array([1 + 2j], np.complex64)).tolist() == [[1.0, 2.0]]
    assert orjson.dumps(jsonable(np.array(0.1, np.float32)), option=orjson.OPT_SERIALIZE_NUMPY) == b"0.1"
    assert jsonable(np.zeros((2, 0), np.float32)) == [[], []]


def test_rows_of_many_shapes():
    layout = RowLayout(OTHER.outputs)
    packed: list[Buffer | None] = []
    for count in (1, 0, 3):
        packed += layout.pack({"boxes": np.ones((1, count, 2), np.float32)}, 1)
    answer = Answer(layout, packed, [Outcome.COMPUTED] * 3)
    got = rows(answer, signature="boxes")
    assert [row["outputs"]["boxes"] for row in got] == [[[1.0, 1.0]], [], [[1.0, 1.0]] * 3]
