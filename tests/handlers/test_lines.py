"""Bytes to lines, whatever the chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rowserve.handlers.lines import LineSplitter
from rowserve.handlers.problem import Problem


def split(text: bytes, cuts: list[int], max_line: int = 1000) -> list[bytes | Problem]:
    splitter = LineSplitter(max_line)
    lines = []
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        lines += splitter.feed(text[start:stop])
    return lines + splitter.finish()


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bc", b"\r\n"]), max_size=30).map(b"".join), st.data())
def test_any_chunking_gives_the_same_lines(text: bytes, data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    wanted = text.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    wanted = [line.removesuffix(b"\r") for line in wanted]
    assert split(text, cuts) == wanted
    assert split(text, cuts, max(map(len, wanted), default=0)) == wanted
    if wanted:
        marked = [cut + 1 for cut in cuts]
        assert split(b"\xef\xbb\xbf" + text, marked) == wanted


def test_a_line_that_is_too_long_takes_no_memory():
    splitter = LineSplitter(10)
    assert splitter.feed(b"x" * 10) == []
    assert splitter.feed(b"x" * 990) == []
    assert not splitter._begun
    for _ in range(999):
        assert splitter.feed(b"x" * 1000) == []
        assert sum(map(len, splitter._begun)) <= 11
    (problem,) = splitter.feed(b"\n")
    assert isinstance(problem, Problem)
    assert problem.status == 413
    assert "1,000,000 bytes" in problem.detail
    assert splitter.feed(b"next\n") == [b"next"]


def test_the_limit_is_the_line_without_its_end():
    assert split(b"x" * 10 + b"\r\n" + b"y" * 10, [], 10) == [b"x" * 10, b"y" * 10]
    problem, after = split(b"x" * 11 + b"\nok\n", [], 10)
    assert isinstance(problem, Problem)
    assert after == b"ok"
    assert isinstance(split(b"x" * 11, [], 10)[0], Problem)
