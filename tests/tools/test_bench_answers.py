"""Answers on the wire: complete when they are, however they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.tools.bench_answers import AnswerReader, BrokenAnswer

LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCache-Status: rowserve; hit\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nConnection: Close\r\n\r\n"
CHUNKED += b"3;x=y\r\na\r\n\r\n1\r\n0\r\n0\r\nT: 1\r\n\r\n"
EMPTY = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
AFTER_100 = b"HTTP/1.1 100 Continue\r\n\r\n" + LONG
ANSWERS = {LONG: (200, b"rowserve; hit", False), CHUNKED: (200, b"", True), EMPTY: (503, b"", False)}
ANSWERS[AFTER_100] = ANSWERS[LONG]


@given(st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=4), st.data())
def test_an_answer_is_complete_with_its_last_byte(answers, data):
    reader = AnswerReader()
    for answer in answers:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1))))
        pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert [reader.feed(piece) for piece in pieces] == [False] * len(cuts) + [True]
        assert (reader.status, reader.cache, reader.closes) == ANSWERS[answer]


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SMTP\r\n\r\n",
        LONG + b"!",
        CHUNKED.replace(b"3;x=y", b"three"),
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_told(broken):
    with pytest.raises(BrokenAnswer):
        AnswerReader().feed(broken)
