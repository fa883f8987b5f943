from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rowserve.tools.feed import Chunk, Feed, Window


def chunk(rows: int, nbytes: int = 0) -> Chunk:
    return Chunk(1, rows, nbytes)


class Waits:
    """What happens while `enter` waits: the next of these calls, each time."""

    def __init__(self, window: Window, *calls: Callable[[], Any]) -> None:
        self.calls = list(calls)
        window._changed.wait = self  # type: ignore[method-assign, assignment]

    def __call__(self, *_: Any) -> bool:
        self.calls.pop(0)()
        return True


@pytest.mark.parametrize("sizes", [(6, 10), (1, 60)], ids=["rows", "bytes"])
def test_a_full_window_is_waited_for(sizes: tuple[int, int]) -> None:
    window = Window(rows=10, nbytes=100)
    first, second = chunk(*sizes), chunk(*sizes)
    assert window.enter(first)
    waits = Waits(window, lambda: None, lambda: window.leave(first))
    assert window.enter(second)
    assert not waits.calls


def test_a_chunk_larger_than_the_window_enters_alone() -> None:
    window = Window(rows=10, nbytes=100)
    huge = chunk(1, 1000)
    assert window.enter(huge)
    assert not window.idle
    window.leave(huge)
    assert window.idle


def test_a_closed_window_lets_nobody_in_and_frees_who_waits() -> None:
    window = Window(rows=1)
    assert window.enter(chunk(1))
    Waits(window, window.close)
    assert not window.enter(chunk(1))
    assert not window.enter(chunk(1))


class Fed:
    """A feed whose calls to the reactor are made at once."""

    def __init__(self, chunks: Iterator[Chunk], window: Window) -> None:
        self.taken: list[Chunk] = []
        self.endings: list[BaseException | None] = []
        self.feed = Feed(
            chunks,
            window,
            call_in_reactor=lambda call: call(),
            take=self.taken.append,
            ended=self.endings.append,
        )
        self.feed.run()


def test_all_chunks_come_and_then_the_end() -> None:
    chunks = [chunk(1), chunk(2)]
    fed = Fed(iter(chunks), Window())
    assert fed.taken == chunks
    assert fed.endings == [None]


def test_a_reader_that_fails_is_told_after_what_came_before() -> None:
    fault = OSError("gone")

    def chunks() -> Iterator[Chunk]:
        yield chunk(1)
        raise fault

    fed = Fed(chunks(), Window())
    assert len(fed.taken) == 1
    assert fed.endings == [fault]


def test_no_more_is_read_than_the_window_holds_and_one() -> None:
    """However long the input: what is not written yet is bounded."""
    read: list[Chunk] = []

    def endless() -> Iterator[Chunk]:
        while True:
            read.append(chunk(4))
            yield read[-1]

    window = Window(rows=10)
    Waits(window, window.close)
    fed = Fed(endless(), window)
    assert len(fed.taken) == 2
    assert len(read) == 3
    assert fed.endings == []
