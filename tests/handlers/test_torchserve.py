"""TorchServe's predictions: what the bytes of a body are, and how they are answered."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec, numpy_dtype
from rowserve.handlers.items import Answer, CachePolicy, Encoded, Labels, ModelFace, Outcome, Picture, Question
from rowserve.handlers.multipart import Part
from rowserve.handlers.problem import Problem
from rowserve.handlers.torchserve import form_part, read_prediction
from rowserve.handlers.torchserve_texts import encode_error
from tests.mutations import MUTATIONS

NUMBERS = [
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
]
X = TensorSpec("x", "float32", (2,))
PIXELS = TensorSpec("pixels", "uint8", (2, 2, 3))
TEXT = TensorSpec("text", "string", ())
LABELS = Labels("y", ["cat", "dog", "cat", "eel", "fox", "gnu", "hen"])


class Decoder:
    identity = b"d"

    def peak_bytes(self, upload: Buffer) -> int:
        return len(upload)

    def decode(self, upload: Buffer) -> Rows:
        raise AssertionError("handlers never decode")


def face(*inputs: TensorSpec, pictures: Any = None, labels: Labels | None = None) -> ModelFace:
    same = tuple(TensorSpec(f"y{i or ''}", spec.dtype, spec.shape, spec.batched) for i, spec in enumerate(inputs))
    name = "serving_default"
    decoders = {} if pictures is None else {name: pictures}
    return ModelFace("m", 1, {name: Signature(name, inputs, same)}, labels, decoders)


VECTOR = face(X)
ZOO = face(PIXELS, pictures=Decoder())


def read(model: ModelFace, body: bytes, kind: str = "", **headers: str) -> Question[Encoded]:
    return read_prediction(model, {"content-type": kind, **headers} if kind else headers, body)


def rows(model: ModelFace, body: bytes, kind: str = "") -> Any:
    (item,) = read(model, body, kind).items
    assert isinstance(item, Rows), item
    return next(iter(item.arrays.values()))


def is_picture(model: ModelFace, body: bytes, kind: str = "") -> bool:
    (item,) = read(model, body, kind).items
    assert not isinstance(item, Picture) or bytes(item.upload) == body
    return isinstance(item, Picture)


def refused(model: ModelFace, body: bytes, kind: str = "", status: int = 400) -> str:
    with pytest.raises(Problem) as caught:
        read(model, body, kind)
    assert caught.value.status == status
    return caught.value.detail


def answer_to(question: Question[Encoded]) -> Encoded:
    """Each row's outputs are its inputs."""
    layout = RowLayout(question.signature.outputs)
    pairs = list(zip(question.signature.inputs, question.signature.outputs, strict=True))
    packed: list[Any] = []
    for item in question.items:
        assert isinstance(item, Rows)
        packed += layout.pack({out.name: item.arrays[put.name] for put, out in pairs}, item.count)
    return question.encode(Answer(layout, packed, [Outcome.HIT] * len(packed)))


def told(model: ModelFace, body: Any, kind: str = "application/json") -> Any:
    return json.loads(answer_to(read(model, body if isinstance(body, bytes) else json.dumps(body).encode(), kind)).body)


def file(kind: str, size: tuple[int, int] = (3, 2)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(out, kind)
    return out.getvalue()


# JSON


def test_one_instance_gets_one_answer_and_instances_a_list():
    assert told(VECTOR, [1, 2]) == [1, 2]
    assert told(VECTOR, {"x": [1, 2]}) == [1, 2]
    assert told(VECTOR, {"data": [1, 2]}) == [1, 2]
    assert told(VECTOR, b" [1,\n2]\n", "application/json; charset=utf-8") == [1, 2]
    assert told(VECTOR, {"instances": [[1, 2]]}) == [[1, 2]]
    assert told(VECTOR, {"instances": [{"data": [1, 2]}, [3, 4]]}) == [[1, 2], [3, 4]]
    assert told(VECTOR, {"instances": []}) == []


def test_several_inputs_and_outputs_are_objects():
    two = face(X, TEXT)
    assert told(two, {"x": [1, 2], "text": "a"}) == {"y": [1, 2], "y1": "a"}
    assert told(two, {"instances": [{"x": [1, 2], "text": "a"}]}) == [{"y": [1, 2], "y1": "a"}]


def test_an_input_may_be_called_instances():
    model = face(TensorSpec("instances", "int32", (2,)))
    assert told(model, {"instances": [1, 2]}) == [1, 2]


def test_json_is_told_by_its_type_or_by_its_first_byte():
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/json"):
        assert rows(VECTOR, b'{"x": [1, 2]}', kind).tolist() == [[1, 2]]
    assert "whole rows of 8 bytes" in refused(VECTOR, b'{"x": [1, 2]}', "application/octet-stream")
    assert refused(VECTOR, b'{"x": [1, 2', "application/json").startswith("not JSON")
    assert refused(VECTOR, b"[1, 2, 3]").startswith("body: expected a list of 2, found one of 3")
    assert refused(VECTOR, b'{"instances": 3}', "application/json") == "instances must be a list"
    assert refused(VECTOR, b'{"instances": [[1]]}', "application/json").startswith("instances[0]:")


def test_bytes_that_begin_like_json_and_are_none_are_a_tensor():
    raw = b"[\0\0\0\0\0\0\0"
    assert rows(VECTOR, raw).tobytes() == raw


def test_the_fast_way_and_the_slow_way_agree():
    for text in (b"[0.1, 1e-45]", b"[-0.0, 3]", b"[1e39, 0]", b"[true, 1]", b"[1, 2,]", b"[[1, 2]]", b"[1 2]"):
        try:
            slow = rows(VECTOR, b'{"instances":[' + text + b"]}", "application/json").tobytes()
        except Problem:
            refused(VECTOR, text, "application/json")
        else:
            assert rows(VECTOR, text, "application/json").tobytes() == slow


def test_a_long_instance_is_read_as_a_short_one_is():
    model = face(TensorSpec("x", "float32", (100, 300)))
    array = np.random.default_rng(3).normal(size=(100, 300)).astype(np.float32)
    text = json.dumps(array.tolist()).encode()
    for body in (text, b" " + text + b"\n", b'{"x":' + text + b"}", b'{"data":' + text + b"}"):
        assert rows(model, body, "application/json").tobytes() == array.tobytes()
    assert rows(model, b'{"instances":[' + text + b"," + text + b"]}", "application/json").shape == (2, 100, 300)
    assert refused(model, text[:-1], "application/json").startswith("not JSON")
    assert refused(model, text + b"1", "application/json").startswith("not JSON")
    assert refused(model, text[:-2] + b",1]]", "application/json").startswith("body[99]: expected a list of 300")


# Bytes


@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_tensors_bytes_are_one_row_or_several(dtype):
    model = face(TensorSpec("x", dtype, (2, 3)))
    array = np.arange(12).reshape(2, 2, 3).astype(numpy_dtype(dtype))
    for kind in ("", "application/octet-stream", "application/x-www-form-urlencoded"):
        assert rows(model, array.tobytes(), kind).tobytes() == array.tobytes()
        assert rows(model, array[:1].tobytes(), kind).shape == (1, 2, 3)
    assert f"whole rows of {array[0].nbytes} bytes" in refused(model, array.tobytes()[:-1])


def test_one_row_of_bytes_gets_one_answer_and_several_a_list():
    assert told(VECTOR, struct.pack("<2f", 1, 2), "") == [1, 2]
    assert told(VECTOR, struct.pack("<4f", 1, 2, 3, 4), "") == [[1, 2], [3, 4]]
    half = face(TensorSpec("x", "bfloat16", (2,)))
    assert told(half, np.array([1.5, 2], ml_dtypes.bfloat16).tobytes(), "") == [1.5, 2]


def test_booleans_are_bytes_of_0_and_1():
    model = face(TensorSpec("x", "bool", (3,)))
    assert rows(model, b"\0\1\1").tolist() == [[False, True, True]]
    assert "0 or 1" in refused(model, b"\0\1\2")


def test_a_text_is_the_row_of_a_model_of_one_string():
    for shape in ((), (1,), None):
        model = face(TensorSpec("text", "string", shape))
        for body, kind in ((b"a \xff\0", ""), (b'["a"]', "text/plain"), (b"{}", "application/octet-stream")):
            assert rows(model, body, kind).reshape(-1).tolist() == [body]
    model = face(TEXT)
    assert rows(model, b'"a"', "application/json").tolist() == [b"a"]
    assert told(model, {"instances": ["a", {"b64": "YWI="}]}) == ["a", "ab"]
    assert "JSON" in refused(face(TensorSpec("text", "string", (2,))), b"two words")


def test_models_without_a_row_form_of_bytes_take_json():
    assert refused(face(TensorSpec("x", "float32", (None,))), b"abcd") == "the body is neither JSON"
    assert refused(face(X, TEXT), b"12345678") == "the body is neither JSON"
    assert refused(face(TensorSpec("x", "float32", (2,), batched=False)), b"12345678") == "the body is neither JSON"
    assert refused(face(TensorSpec("x", "float32", (0,))), b"12345678") == "the body is neither JSON"


def test_a_body_there_must_be():
    for kind in ("", "application/json", "image/png"):
        assert refused(VECTOR, b"", kind).startswith("the request has no body") or kind == "application/json"


# Pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_pictures_are_told_by_their_bytes(kind):
    for content_type in ("", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"):
        assert is_picture(ZOO, file(kind), content_type)


def test_a_body_that_says_it_is_a_picture_is_one():
    assert is_picture(ZOO, b"no picture", "image/png")
    assert "neither a picture nor whole rows of 12 bytes nor JSON" in refused(ZOO, b"no picture")


@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_a_tensor_that_begins_like_a_picture_is_a_tensor(kind):
    raw = file(kind)[:3].ljust(48, b"\7")
    assert rows(ZOO, raw).tobytes() == raw
    assert is_picture(ZOO, raw, "image/jpeg")
    assert is_picture(ZOO, raw + b"\7")


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PNG"])
def test_a_picture_of_as_many_bytes_as_rows_is_a_picture(kind):
    sizes = [file(kind, (w, 5)) for w in range(3, 60)]
    model = face(TensorSpec("pixels", "uint8", (1,)), pictures=Decoder())
    assert all(is_picture(model, each) for each in sizes)


def test_pictures_in_json_are_base64():
    png = file("PNG")
    text = base64.b64encode(png).decode()
    for value in ({"data": text}, {"b64": text}, text, {"body": {"b64": text}}):
        (item,) = read(ZOO, json.dumps(value).encode(), "application/json").items
        assert isinstance(item, Picture)
        assert item.upload == png
    both = json.dumps({"instances": [{"data": text}, np.zeros((2, 2, 3), int).tolist()]}).encode()
    first, second = read(ZOO, both, "application/json").items
    assert (type(first), type(second)) == (Picture, Rows)


def test_a_model_that_takes_no_pictures_says_so():
    assert refused(VECTOR, file("PNG"), "image/png", 422).startswith("model m takes no pictures")
    card = face(X, pictures=Problem(422, "write range = [0, 1]"))
    assert refused(card, file("PNG"), "image/png", 422) == "write range = [0, 1]"


# Forms


def test_the_part_that_counts():
    def part(name: str, data: bytes = b"") -> Part:
        return Part(name, "", "", data)

    assert form_part([part("a"), part("data", b"1"), part("body"), part("data", b"2")]).data == b"2"
    assert form_part([part("body", b"1"), part("z")]).data == b"1"
    assert form_part([part("file", b"1")]).data == b"1"
    with pytest.raises(Problem, match="the form has the fields 'a', 'b'; send one, called data"):
        form_part([part("a"), part("b")])


def test_a_parts_type_takes_the_place_of_the_forms():
    form = {"content-type": "multipart/form-data; boundary=x"}
    question = read_prediction(VECTOR, form, b"[1, 2]", "application/json")
    assert answer_to(question).body == b"[1.0,2.0]"


def test_a_form_in_the_urls_way():
    form = "application/x-www-form-urlencoded"
    assert rows(face(TEXT), b"data=a+b%21&x=1", form).tolist() == [b"a b!"]
    assert rows(VECTOR, b"body=%5B1%2C+2%5D", form).tolist() == [[1, 2]]
    assert refused(VECTOR, b"data=" + b"%41" * 400_000, form, 413)
    assert rows(face(TEXT), b"data=a+b", "text/plain").tolist() == [b"data=a+b"]


# Answers


def test_a_classifier_answers_its_best_labels():
    model = face(TensorSpec("x", "float32", (7,)), labels=LABELS)
    scores = [0.1, 0.05, 0.3, 0.25, 0.2, 0.06, 0.04]
    encoded = answer_to(read(model, json.dumps(scores).encode(), "application/json"))
    assert encoded.body.startswith(b'{\n  "cat": 0.3,\n  "eel": 0.25')
    assert list(json.loads(encoded.body).items()) == [("cat", 0.3), ("eel", 0.25), ("fox", 0.2), ("gnu", 0.06)]
    assert [list(each) for each in told(model, {"instances": [scores, scores]})] == [["cat", "eel", "fox", "gnu"]] * 2


def test_labels_that_do_not_fit_the_signature_do_not_count():
    assert told(face(X, labels=Labels("elsewhere", ["a", "b"])), [1, 2]) == [1, 2]


def test_headers():
    headers = dict(answer_to(read(VECTOR, b"[1, 2]")).headers)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Status"] == "rowserve; hit"
    assert headers["Cache-Control"].startswith("no-cache, no-store")
    assert len(headers["x-request-id"]) == 36
    assert dict(answer_to(read(VECTOR, b"[1, 2]")).headers)["x-request-id"] != headers["x-request-id"]


def test_the_requests_headers_are_wishes():
    options = read(VECTOR, b"[1, 2]", **{"cache-control": "no-store", "request-timeout": "2"}).options
    assert (options.protocol, options.timeout, options.cache) == ("torchserve", 2.0, CachePolicy(no_store=True))


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1), st.booleans())
def test_rows_come_in_to_the_bit(values, raw):
    array = np.asarray(values, "<f4")
    finite = bool(np.isfinite(array).all())
    if raw:
        assert rows(VECTOR, array.tobytes(), "application/octet-stream").tobytes() == array.tobytes()
    elif finite:
        body = json.dumps({"instances": array.tolist()}).encode()
        assert rows(VECTOR, body, "application/json").tobytes() == array.tobytes()


VALID = [
    (VECTOR, b'{"instances": [[1, 2], {"data": [3, 4]}]}', "application/json"),
    (VECTOR, struct.pack("<4f", 1, 2, 3, 4), ""),
    (ZOO, file("PNG"), ""),
    (ZOO, file("JPEG"), ""),
    (ZOO, json.dumps({"instances": [{"data": base64.b64encode(file("GIF")).decode()}]}).encode(), "application/json"),
    (face(X, TEXT), b'{"x": [1, 2], "text": "a"}', ""),
    (face(TEXT), b"data=a+b%21&x=1", "application/x-www-form-urlencoded"),
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
                text[at:at] = chance.choice([b"[", b"]", b"{", b"}", b",", b'"', b"1e999", b"null", b"\0", b"%"])
            case _:
                text[at:at] = text[max(at - 9, 0) : at]
    return bytes(text)


def test_mutated_bodies_are_read_or_refused():
    chance = random.Random(12)
    refusals: Counter[int] = Counter()
    for turn in range(MUTATIONS):
        model, body, kind = VALID[turn % len(VALID)]
        try:
            assert isinstance(read(model, mutated(body, chance), kind), Question)
        except Problem as problem:
            refusals[problem.status] += 1
            encode_error(problem)
    assert set(refusals) <= {400, 422}
