"""Lines to rows and rows to lines: a chunk is what its lines are, one by one."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import ndjson
from rowserve.handlers.items import Answer, Labels, ModelFace, Outcome, Picture
from rowserve.handlers.native_rows import Wants
from rowserve.handlers.ndjson import LineReader, Mode, PathLine, encode_lines, encode_problem_line
from rowserve.handlers.problem import Problem

OUT = (TensorSpec("y", "float32", (2,)),)
VECTOR = Signature("vector", (TensorSpec("x", "float32", (2,)),), OUT)
SCALAR = Signature("scalar", (TensorSpec("x", "int64", ()),), OUT)
TWO = Signature("two", (TensorSpec("a", "float32", (2,)), TensorSpec("b", "int32", ())), OUT)
IMAGE = Signature("image", (TensorSpec("x", "uint8", (1, 2, 3)),), OUT)
TEXT = Signature("text", (TensorSpec("x", "string", ()),), OUT)
ALONE = Signature("alone", (TensorSpec("x", "float32", (2,)),), OUT, alone="a counter")
SIGNATURES = {signature.name: signature for signature in (VECTOR, SCALAR, TWO, IMAGE, TEXT, ALONE)}


class Decoder:
    identity = b"d"

    def peak_bytes(self, upload: Buffer) -> int:
        return len(upload)

    def decode(self, upload: Buffer) -> Rows:
        raise AssertionError("handlers never decode")


DECODER = Decoder()
NO_CARD = Problem(422, "write range = [0, 1]")
FACE = ModelFace("m", 1, SIGNATURES, Labels("y", ["no", "yes"]), {"image": DECODER, "vector": NO_CARD})


def reader(name: str = "vector", mode: Mode = Mode.JSON) -> LineReader:
    return LineReader(FACE, SIGNATURES[name], mode)


def flat(items: list[Any]) -> list[Any]:
    """Each line's own item, in a form that can be compared."""
    each: list[Any] = []
    for item in items:
        if isinstance(item, Rows):
            for i in range(item.count):
                each.append({name: (a.dtype.name, a[i : i + 1].tolist()) for name, a in item.arrays.items()})
        else:
            each.append((item.status, item.detail) if isinstance(item, Problem) else item)
    return each


LINES = st.lists(
    st.sampled_from(
        [b"[1,2]", b" [1.5, 2e0]\t", b'{"x":[1,2]}', b"[1,2", b"3],[4,5]", b"[1,NaN]", b"[1]", b"[1,2,3]", b"", b"  ",
         b"hello", b"null", b"[1,true]", b'{"a":[1,2],"b":3}', b'{"a":[1,2],"b":3.5}', b'{"b":1}', b'{"b64":"YQ=="}',
         b"7", b"-0", b"9223372036854775807", b"9223372036854775808", b"1e3", b"\xff\xfe", b"a\0b", b'"text"',
         b"[[[1,2,3],[4,5,6]]]", b"[1e39,0]", b"[[1,2]]", b"[1,2],[3,4]", b"cat.jpg"]
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=400)
@given(LINES, st.sampled_from(sorted(SIGNATURES)), st.sampled_from(Mode))
def test_a_chunk_is_what_its_lines_are_one_by_one(lines: list[bytes], name: str, mode: Mode):
    one = reader(name, mode)
    together = one.read(lines)
    assert flat(together) == flat([item for line in lines for item in one.read([line])])
    assert sum(item.count if isinstance(item, Rows) else 1 for item in together) == len(lines)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=12), max_size=4), st.sampled_from(sorted(SIGNATURES)), st.sampled_from(Mode))
def test_any_bytes_are_items(lines: list[bytes], name: str, mode: Mode):
    for item in reader(name, mode).read(lines):
        assert isinstance(item, Rows | Picture | PathLine | Problem)
        if isinstance(item, Problem):
            assert item.status in (400, 422)


def test_a_chunk_of_good_lines_is_one_array():
    (rows,) = reader().read([b"[1,2]", b"[3,4]", b"[5,6]"])
    assert isinstance(rows, Rows)
    assert rows.arrays["x"].tolist() == [[1, 2], [3, 4], [5, 6]]
    (rows,) = reader("two").read([b'{"a":[1,2],"b":3}', b'{"b":4,"a":[5,6]}'])
    assert isinstance(rows, Rows)
    assert rows.arrays["b"].tolist() == [3, 4]


def test_a_bad_line_stands_in_its_place():
    first, bad, rest = reader().read([b"[1,2]", b'[1,"2"]', b"[3,4]", b"[5,6]"])
    assert isinstance(bad, Problem)
    assert bad.detail == "row[1]: expected a number, found a string"
    assert isinstance(first, Rows)
    assert isinstance(rest, Rows)
    assert (first.count, rest.count) == (1, 2)


def test_problems_of_the_splitter_pass_through():
    too_long = Problem(413, "long")
    assert reader().read([b"[1,2]", too_long])[1] is too_long


def test_rows_that_run_alone_come_one_by_one():
    assert [item.count for item in reader("alone").read([b"[1,2]", b"[3,4]"]) if isinstance(item, Rows)] == [1, 1]
    assert len(reader("alone").read([b"[1,2]", b"[3,4]", b"[5]"])) == 3


def test_on_the_network_no_line_is_a_path():
    for line in (b"cat.jpg", b"/etc/passwd", b'"/etc/passwd"'):
        (item,) = reader("image").read([line])
        assert isinstance(item, Problem)
        assert item.status == 400


def test_paths():
    assert reader("image", Mode.PATHS).read([b"a b.jpg", b"[1].png"]) == [PathLine("a b.jpg"), PathLine("[1].png")]
    assert reader("image", Mode.AUTO).read([b"a b.jpg"]) == [PathLine("a b.jpg")]
    assert reader("image", Mode.AUTO).read([b"caf\xe9.jpg"]) == [PathLine("caf\udce9.jpg")]
    for junk in (b"a\0b", b"x" * 5000, b""):
        (item,) = reader("image", Mode.AUTO).read([junk])
        assert isinstance(item, Problem)


def test_in_auto_mode_a_broken_list_is_no_path():
    (item,) = reader("image", Mode.AUTO).read([b"[1,2"])
    assert isinstance(item, Problem)
    assert "not JSON" in item.detail


def test_a_model_that_takes_no_pictures_says_why_a_path_is_none():
    assert reader("vector", Mode.AUTO).read([b"cat.jpg"]) == [NO_CARD]
    (item,) = reader("two", Mode.AUTO).read([b"cat.jpg"])
    assert isinstance(item, Problem)
    assert "neither JSON nor a picture's path" in item.detail
    assert reader("vector").picture(b"x") is NO_CARD
    assert isinstance(reader("two").picture(b"x"), Problem)
    assert reader("image").picture(b"x") == Picture(b"x", DECODER)


def test_a_picture_in_json():
    line = orjson.dumps({"b64": base64.b64encode(b"\xff\xd8").decode()})
    assert reader("image").read([line]) == [Picture(b"\xff\xd8", DECODER)]
    assert reader("image").read([b'{"x":%b}' % line]) == [Picture(b"\xff\xd8", DECODER)]
    assert reader("vector").read([line]) == [NO_CARD]
    (broken,) = reader("image").read([b'{"b64":"!"}'])
    assert isinstance(broken, Problem)
    assert broken.status == 400
    (text,) = reader("text").read([line])
    assert isinstance(text, Rows)
    assert text.arrays["x"].tolist() == [b"\xff\xd8"]


def answered(values: Any, errors: dict[int, Problem] | None = None) -> Answer:
    array = np.asarray(values, np.float32)
    layout = RowLayout(OUT)
    packed: list[Buffer | None] = list(layout.pack({"y": array}, len(array)))
    outcomes = [Outcome.COMPUTED] * len(array)
    for index in errors or {}:
        packed[index], outcomes[index] = None, Outcome.FAILED
    return Answer(layout, packed, outcomes, errors or {})


def test_the_exact_lines():
    wants = Wants(1, ("y",))
    text = encode_lines(FACE, answered([[0.1, 0.9], [1, 0]], {1: Problem(422, "broken", title="T")}), wants, 7)
    assert text == (
        b'{"line":7,"cache":"computed","top":[{"index":1,"label":"yes","score":0.9}],"outputs":{"y":[0.1,0.9]}}\n'
        b'{"line":8,"error":{"status":422,"title":"T","detail":"broken"}}\n'
    )
    text = encode_lines(FACE, answered([[0.1, np.nan]]), Wants(None, ("y",)), 1, ["cat.jpg"])
    assert text == b'{"line":1,"input":"cat.jpg","cache":"computed","outputs":{"y":[0.1,null]}}\n'
    text = encode_problem_line(Problem(404, "no such file"), 2, "caf\udce9.jpg")
    wanted = b'{"line":2,"input":"caf?.jpg","error":{"status":404,"title":"Not Found","detail":"no such file"}}\n'
    assert text == wanted


@given(st.lists(st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=5))
def test_many_lines_are_what_each_is_alone_and_floats_come_back(values: list[tuple[float, float]]):
    wants = Wants(2, ("y",))
    together = encode_lines(FACE, answered(values), wants, 1)
    alone = b"".join(encode_lines(FACE, answered([value]), wants, i + 1) for i, value in enumerate(values))
    assert together == alone
    back = [json.loads(line)["outputs"]["y"] for line in together.splitlines()]
    assert np.array_equal(np.array(back, np.float32), np.array(values, np.float32))


def test_an_answer_that_ran_alone():
    layout = RowLayout([TensorSpec("y", "float32", (1, 2), batched=False)])
    packed = layout.pack({"y": np.array([[[1, 2]], [[3, 4]]], np.float32)}, 2)
    answer = Answer(layout, list(packed), [Outcome.BYPASSED] * 2, alone=True)
    lines = encode_lines(FACE, answer, Wants(None, ("y",)), 1).splitlines()
    assert [json.loads(line)["outputs"]["y"] for line in lines] == [[1, 2], [3, 4]]


def test_a_hundred_thousand_lines_never_meet_python_numbers(monkeypatch: pytest.MonkeyPatch):
    """The way of plain vectors never parses line by line."""
    monkeypatch.setattr(ndjson, "read_json", None)
    (rows,) = reader().read([b"[1,2]"] * 256)
    assert isinstance(rows, Rows)
    assert rows.count == 256
