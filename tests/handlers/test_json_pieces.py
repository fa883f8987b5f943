"""Large JSON documents in pieces: what comes out is what a parser of the whole gives, and nothing else is taken."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowserve.handlers import json_pieces
from rowserve.handlers.json_pieces import LongList, NotJson, pieces_of, read_pieces, skip_blank

SCALAR = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=60
)
LAYOUT = st.sampled_from([{}, {"indent": 3}, {"separators": (",", ":")}, {"ensure_ascii": False}])
small_pieces = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[12, 17, 40])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So few bytes are a piece that every document has many."""
    monkeypatch.setattr(json_pieces, "PIECE", request.param)
    return int(request.param)


def plain(value: Any) -> Any:
    """The value with its long lists read to their ends."""
    if isinstance(value, LongList):
        return [plain(element) for piece in value.pieces() for element in piece]
    if isinstance(value, dict):
        return {name: plain(element) for name, element in value.items()}
    return value


def whole(text: bytes) -> Any:
    value, end = read_pieces(text)
    if skip_blank(text, end) != len(text):
        raise NotJson("more", end)
    return plain(value)


@small_pieces
@given(VALUE, LAYOUT)
def test_the_value_is_that_of_the_whole(piece: int, value: Any, layout: Any):
    text = json.dumps(value, **layout).encode("utf-8", "surrogatepass")
    assert whole(text) == value
    assert whole(memoryview(b" \n" * piece + text + b"\t" * piece)) == value  # type: ignore[arg-type]


def test_spoilt_text_is_no_json_or_what_a_parser_makes_of_it(piece: int):
    chance = random.Random(piece)
    texts = [
        b'{"a": [[1, 2], [3.5, {"b": "x\\"y\\\\"}], "long \\u00e9 \\ud83d\\ude00 text", []], "c": {"d": [true, null]}}',
        b'[[1,2,3,4,5,6,7,8,9],["\\\\","\\\\\\"",{"k":"]"}],[[[[[1]]]]],"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9\xc3\xa9"]',
    ]
    marks = b'[]{}",:\\ 0-e.ntu\xc3\xa9'
    good = 0
    for _ in range(4000):
        data = bytearray(chance.choice(texts))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] = chance.choice(marks)
                case 1:
                    del data[at]
                case 2:
                    data.insert(at, chance.choice(marks))
        try:
            wanted: Any = json.loads(data.decode())
        except ValueError:
            wanted = NotJson
        try:
            found = whole(bytes(data))
        except NotJson as fault:
            assert fault.status == 400  # noqa: PT017
            assert wanted is NotJson or not encodable(wanted), data
        else:
            assert found == wanted, data
            good += 1
    assert good > 200


def encodable(value: Any) -> bool:
    """Whether all of its text is Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def test_what_follows_the_value_is_left():
    for text in (b'{"a": 1} more', b"[" + b"[1,2]," * 50_000 + b"[]] [[[", b'  "text"\n{', b"12 13"):
        value, end = read_pieces(text)
        assert plain(value) == json.JSONDecoder().raw_decode(text.decode().lstrip())[0]
        assert 0 < end < len(text)


def test_a_short_list_is_a_list_and_a_long_one_stays_text():
    document, _ = read_pieces(
        b'{"short": [1, [2]], "long": [' + b"1," * 100_000 + b'2], "blank": [' + b" " * 100_000 + b"]}"
    )
    assert document["short"] == [1, [2]]
    assert document["blank"] == []
    assert isinstance(document["long"], LongList)
    assert document["long"].first() == 1
    pieces = list(pieces_of(document["long"]))
    assert [index for index, _ in pieces] == [sum(len(p) for _, p in pieces[:i]) for i in range(len(pieces))]
    assert sum(len(values) for _, values in pieces) == 100_001
    assert max(len(values) for _, values in pieces) <= json_pieces.PIECE
    assert list(pieces_of([1, 2])) == [(0, [1, 2])]


def test_an_element_longer_than_a_piece_comes_alone():
    inner = json.dumps(list(range(50_000))).encode()
    value, _ = read_pieces(b'[1, "a", %b, {"x": %b}, 2]' % (inner, inner))
    pieces = list(value.pieces())
    assert [len(values) for values in pieces] == [2, 1, 1, 1]
    assert isinstance(pieces[1][0], LongList)
    assert isinstance(pieces[2][0]["x"], LongList)
    assert plain(value) == [1, "a", list(range(50_000)), {"x": list(range(50_000))}, 2]


def test_nan_and_infinity():
    value = plain(read_pieces(b"[" + b"1," * 40_000 + b"NaN, -Infinity, Infinity]")[0])
    assert math.isnan(value[-3])
    assert value[-2:] == [-math.inf, math.inf]


MANY = b"[1]," * 30_000


@pytest.mark.parametrize(
    "text",
    [
        b"", b"   ", b"{", b"[", b"[" + MANY, b"[" + MANY + b"]", b"[," + MANY + b"[1]]", b"[" + MANY + b",1]",
        b"[" + MANY + b"[1]}", b"[" + MANY + b"[1}]", b"[" + MANY + b'"a]', b"[" + MANY + b"1 2]",
        b"[" + MANY + b"nul]", b"[" + MANY + b'"\xff"]', b"[" * 60_000 + b"]" * 60_000, b'{"a" 1}',
        b'{"a": 1,}', b'{"a": 1 "b"}', b"{1: 2}",
        b'{"a": ' + b"1" * 5000 + b"}", b'"' + b"x" * 100_000, b'"' + b"x" * 100_000 + b"\\x" + b'"',
        b'"' + b"x" * 100_000 + b"\\ud800" + b"x" * 100_000 + b'"', b'"' + b"x" * 100_000 + b"\xff" + b'"',
        b'"' + b"\x80" * 100_000 + b'"', b"{" + b",".join(b'"%d":1' % i for i in range(70_000)) + b"}",
        b'{"a":' * 40 + b"[" + MANY + b"1]" + b"}" * 40,
    ],
)  # fmt: skip
def test_what_is_no_json_or_too_much_of_it(text: bytes):
    with pytest.raises(NotJson) as caught:
        whole(text)
    assert caught.value.status == 400
    assert 0 <= caught.value.offset <= len(text)


@pytest.mark.parametrize("unit", ["a", "\u00e9", "\u20ac", "\U0001f600", "\n", "\\", '"', "\u0001", "ab\\\u00e9\n"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_long_strings(unit: str, ascii_only: bool):
    value = {"k": unit * 100_000, unit * 50_000: 1}
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    for start in range(4):
        assert whole(b" " * start + text) == value
