from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.cache import record
from rowserve.cache.record import HEADER_BYTES, INLINE_BYTES, PIECE_BYTES, Kind, Stamp

KEY = bytes(range(32))
STAMP = Stamp(1_700_000_000, 1_600_000_000, b"abcd")
SIZES = [0, 1, 100, 4000, INLINE_BYTES, INLINE_BYTES + 1, 4080, 4096, 3 * PIECE_BYTES, 300_000]


def body_of(size: int) -> bytes:
    return bytes(i * 31 % 251 for i in range(size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", list(Kind))
def test_what_goes_in_comes_out(size, kind):
    body = body_of(size)
    value, pieces = record.seal(kind, KEY, STAMP, memoryview(body), first_piece=7)
    assert record.unseal_any(kind, KEY, value, [bytes(piece) for piece in pieces]) == body
    assert record.pieces_of(value) == ((7, len(pieces)) if pieces else (0, 0))
    assert record.stamp_of(value) == STAMP
    assert record.kind_of(value) == kind
    assert len(pieces) == record.pieces_needed(size)


@pytest.mark.parametrize("size", SIZES)
def test_every_value_fits_one_page(size):
    value, pieces = record.seal(Kind.ROW, KEY, STAMP, body_of(size))
    assert max(map(len, (value, *pieces))) <= PIECE_BYTES == 4080


def test_an_answer_of_4000_bytes_takes_one_page_and_no_pieces():
    value, pieces = record.seal(Kind.ROW, KEY, STAMP, bytes(4000))
    assert len(value) <= 4080
    assert not pieces
    assert HEADER_BYTES <= 48


@given(st.sampled_from([0, 100, INLINE_BYTES + 500]), st.data())
def test_any_flipped_bit_is_detected(size, data):
    value, pieces = record.seal(Kind.ROW, KEY, STAMP, body_of(size))
    parts = [value, *map(bytes, pieces)]
    part = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, len(parts[part]) * 8 - 1))
    flipped = bytearray(parts[part])
    flipped[bit // 8] ^= 1 << bit % 8
    parts[part] = bytes(flipped)
    assert record.unseal_any(Kind.ROW, KEY, parts[0], parts[1:]) is None
    assert record.unseal(Kind.ROW, KEY, parts[0]) is None


def test_every_bit_of_the_header_counts():
    value, _ = record.seal(Kind.ROW, KEY, STAMP, b"body")
    for bit in range(HEADER_BYTES * 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        assert record.unseal_any(Kind.ROW, KEY, bytes(flipped), []) is None


@given(st.integers(0, 255))
def test_a_record_under_another_key_is_none(bit):
    value, _ = record.seal(Kind.ROW, KEY, STAMP, b"body")
    other = bytearray(KEY)
    other[bit // 8] ^= 1 << bit % 8
    assert record.unseal(Kind.ROW, bytes(other), value) is None


def test_a_record_of_another_kind_is_none():
    value, _ = record.seal(Kind.ALIAS, KEY, STAMP, b"body")
    assert record.unseal(Kind.ROW, KEY, value) is None
    assert record.unseal(Kind.DOCUMENT, KEY, value) is None


@given(st.binary(max_size=60))
def test_junk_is_none(junk):
    for kind in Kind:
        assert record.unseal_any(kind, KEY, junk, []) is None
    assert record.pieces_of(junk[:9]) == (0, 0)
    assert record.kind_of(junk[:9]) == 0


@pytest.mark.parametrize("size", [INLINE_BYTES + 1, 3 * PIECE_BYTES])
def test_missing_extra_and_swapped_pieces_are_detected(size):
    body = body_of(size)
    value, pieces = record.seal(Kind.ROW, KEY, STAMP, body)
    parts = [bytes(piece) for piece in pieces]
    assert record.unseal_any(Kind.ROW, KEY, value, parts[:-1]) is None
    assert record.unseal_any(Kind.ROW, KEY, value, [*parts, b"more"]) is None
    if len(parts) > 1:
        assert record.unseal_any(Kind.ROW, KEY, value, [*parts[1:], parts[0]]) is None


def test_times_compare_as_bytes_do():
    times = [0, 1, 255, 256, 1_700_000_000, 2**32 - 1]
    assert [record.created_bytes(time) for time in times] == sorted(record.created_bytes(time) for time in times)
    assert record.created_bytes(-5) == record.created_bytes(0)
    assert record.created_bytes(2**40) == record.created_bytes(2**32 - 1)
    assert record.created_bytes(1.2) == record.created_bytes(2)
    value, _ = record.seal(Kind.ROW, KEY, STAMP, b"")
    assert value[12:16] == record.created_bytes(STAMP.created)
