"""Bodies come out as they went in, however their bytes arrive; and nothing that arrives makes a reader fail."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rowserve.server.framing import CHUNKS_A_TURN, TRAILER_BYTES, ChunkReader, LengthReader
from tests.http_doubles import chunked


def fed(reader: ChunkReader | LengthReader, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What the reader makes of the pieces, and what it leaves."""
    body = rest = b""
    for piece in pieces:
        rest += piece
        while not (reader.done or reader.fault):
            read, used = reader.read(rest)
            body, rest = body + read, rest[used:]
            if not reader.again:
                break
    return body, rest


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(min_size=1)), st.binary(), st.lists(st.integers(0, 1 << 16)))
def test_chunks_however_they_are_cut(pieces, rest, places):
    reader = ChunkReader()
    assert fed(reader, cut(chunked(*pieces) + rest, places)) == (b"".join(pieces), rest)
    assert reader.done
    assert not reader.fault


@given(st.binary(), st.binary(), st.lists(st.integers(0, 1 << 16)))
def test_a_length_however_it_is_cut(body, rest, places):
    reader = LengthReader(len(body))
    assert fed(reader, cut(body + rest, places)) == (body, rest)
    assert reader.done


@given(st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"0", b"2", b"a;b", b"X: y", b" ", b"\0", b"\xff"])), st.data())
def test_whatever_comes_is_a_body_or_a_fault_and_cuts_do_not_matter(words, data):
    raw = b"".join(words)
    whole, parts = ChunkReader(), ChunkReader()
    made = fed(whole, [raw])
    again = fed(parts, cut(raw, data.draw(st.lists(st.integers(0, len(raw))))))
    assert (parts.done, bool(parts.fault)) == (whole.done, bool(whole.fault))
    if not whole.fault:
        assert again == made


def test_a_turn_has_so_many_chunks():
    reader = ChunkReader()
    raw = chunked(*[b"a"] * (CHUNKS_A_TURN + 1))
    body, used = reader.read(raw)
    assert (len(body), reader.again, reader.done) == (CHUNKS_A_TURN, True, False)
    assert reader.read(raw[used:]) == (b"a", len(raw) - used)
    assert reader.done


def test_trailers_are_dropped_up_to_their_limit():
    fine = b"0\r\nX: " + b"a" * (TRAILER_BYTES - 7) + b"\r\n\r\n"
    for extra, fault in ((b"", False), (b"b", True)):
        reader = ChunkReader()
        reader.read(fine.replace(b"X: ", b"X: " + extra))
        assert (bool(reader.fault), reader.done) == (fault, not fault)
