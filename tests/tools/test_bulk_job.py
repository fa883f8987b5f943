from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from rowserve.handlers.items import Outcome
from rowserve.handlers.problem import Problem
from rowserve.tools.bulk_job import BulkJob, Ending, Reply
from rowserve.tools.feed import Chunk, Window
from rowserve.tools.output import Output, Silence, write_all


class Bench:
    """A job whose door answers when the test says so; what comes out is in `printed`."""

    def __init__(self) -> None:
        self.window = Window()
        self.asked: list[Deferred[Reply]] = []
        self.cancelled = 0
        self.at_once: Reply | BaseException | None = None
        self.printed: list[int] = []
        self.synced: Deferred[str] = Deferred()
        self.job = BulkJob(self, self, self.window)
        self.endings: list[Ending] = []
        self.job.done.addCallback(self.endings.append)
        self.chunks: list[Chunk] = []

    def feed(self, rows: int = 1) -> None:
        chunk = Chunk(sum(c.rows for c in self.chunks) + 1, rows, 0)
        self.chunks.append(chunk)
        assert self.window.enter(chunk)
        self.job.take(chunk)

    def ask(self, chunk: Chunk) -> Reply | Deferred[Reply]:
        if isinstance(self.at_once, BaseException):
            raise self.at_once
        if self.at_once is not None:
            return self.at_once
        self.asked.append(Deferred(self._cancel))
        return self.asked[-1]

    def _cancel(self, _: Any) -> None:
        self.cancelled += 1

    def finish(self) -> Deferred[str]:
        return self.synced

    def put(self, chunk: Chunk, reply: Reply) -> None:
        self.printed.append(chunk.first)
        self.window.leave(chunk)

    def end(self, done: Callable[[], None]) -> None:
        done()


GOOD = Reply(bytes, {Outcome.COMPUTED: 1})


def test_answers_come_out_in_the_order_of_the_lines() -> None:
    bench = Bench()
    for _ in range(3):
        bench.feed()
    bench.asked[2].callback(GOOD)
    bench.asked[1].callback(GOOD)
    assert bench.printed == []
    bench.asked[0].callback(GOOD)
    assert bench.printed == [1, 2, 3]
    bench.at_once = GOOD
    bench.feed()
    assert bench.printed == [1, 2, 3, 4]
    assert bench.window.idle
    assert bench.job.tally.rows == 4


def test_success_is_told_only_after_the_sync() -> None:
    bench = Bench()
    bench.feed()
    bench.job.ended(None)
    bench.asked[0].callback(GOOD)
    assert bench.endings == []
    bench.synced.callback("")
    assert bench.endings == [Ending.COMPLETE]
    assert bench.job.not_kept == ""


def test_what_was_not_kept_is_told() -> None:
    bench = Bench()
    bench.job.ended(None)
    bench.synced.callback("3 rows were not kept")
    assert bench.job.not_kept == "3 rows were not kept"


def test_an_interrupted_run_forgets_what_is_not_known_and_keeps_what_is() -> None:
    bench = Bench()
    for _ in range(3):
        bench.feed()
    bench.asked[0].callback(GOOD)
    bench.asked[2].callback(GOOD)
    bench.job.interrupt()
    assert bench.printed == [1]
    assert bench.cancelled == 1
    late = Chunk(9, 1, 0)
    assert not bench.window.enter(late)
    bench.synced.callback("")
    assert bench.endings == [Ending.INTERRUPTED]
    bench.job.ended(None)
    bench.job.interrupt()
    assert bench.endings == [Ending.INTERRUPTED]


def test_a_model_that_breaks_ends_the_run_after_what_came_before() -> None:
    bench = Bench()
    bench.feed()
    bench.feed()
    bench.asked[1].callback(Reply(bytes, {Outcome.FAILED: 1}, fatal="no such op"))
    bench.asked[0].callback(GOOD)
    bench.synced.callback("")
    assert bench.printed == [1]
    assert (bench.endings, bench.job.why) == ([Ending.BROKEN], "no such op")


def test_a_chunk_that_fails_whole_fails_its_rows_and_the_next_goes_on() -> None:
    bench = Bench()
    bench.feed(rows=3)
    bench.asked[0].errback(Problem(503, "the queue is full"))
    bench.at_once = GOOD
    bench.feed()
    assert bench.printed == [1, 4]
    assert (bench.job.tally.failed, bench.job.tally.rows) == (3, 4)


def test_a_fault_of_ours_fails_its_rows_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.at_once = RuntimeError("a bug")
    with caplog.at_level(logging.ERROR):
        bench.feed(rows=2)
    assert bench.job.tally.failed == 2
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("error", "ending"), [(BrokenPipeError(), Ending.CLOSED), (OSError(28, "No space left"), Ending.BROKEN)]
)
def test_an_output_that_fails_ends_the_run(error: OSError, ending: Ending) -> None:
    for early in (True, False):
        bench = Bench()
        bench.feed()
        if early:
            bench.asked[0].addErrback(lambda failure: failure.trap(CancelledError))
            bench.job.output_failed(error)
        else:
            bench.asked[0].callback(GOOD)
            bench.job.ended(None)
            bench.job.output_failed(error)
        bench.synced.callback("")
        assert bench.endings == [ending]


def test_an_input_that_fails_is_told_after_what_was_read() -> None:
    bench = Bench()
    bench.feed()
    bench.job.ended(OSError("Input/output error"))
    bench.asked[0].callback(GOOD)
    bench.synced.callback("")
    assert bench.printed == [1]
    assert bench.endings == [Ending.BROKEN]
    assert "Input/output error" in bench.job.why


# Output


class Pipe:
    """What an Output writes; it fails from the call on that the test names."""

    def __init__(self, failing: int = -1) -> None:
        self.texts: list[bytes] = []
        self.failing = failing
        self.failures: list[BaseException] = []

    def write(self, text: bytes) -> None:
        if len(self.texts) == self.failing:
            raise BrokenPipeError
        self.texts.append(text)


def run(pipe: Pipe, *replies: Reply) -> tuple[Window, list[bool]]:
    window, ended = Window(), []
    output = Output(pipe.write, window, call_in_reactor=lambda call: call())
    output.failed = pipe.failures.append
    for number, reply in enumerate(replies):
        chunk = Chunk(number + 1, 1, 0)
        assert window.enter(chunk)
        output.put(chunk, reply)
    output.end(lambda: ended.append(True))
    output.run()
    return window, ended


def test_answers_are_written_and_their_room_freed() -> None:
    pipe = Pipe()
    window, ended = run(pipe, Reply(lambda: b"a\n", {}), Reply(lambda: b"b\n", {}))
    assert (pipe.texts, pipe.failures, ended) == ([b"a\n", b"b\n"], [], [True])
    assert window.idle


def test_after_a_failed_write_nothing_is_written_and_nothing_hangs() -> None:
    pipe = Pipe(failing=1)
    window, ended = run(pipe, *[Reply(lambda: b"a\n", {})] * 4)
    assert (pipe.texts, len(pipe.failures), ended) == ([b"a\n"], 1, [True])
    assert window.idle


def test_answers_that_cannot_be_encoded_are_errors_in_their_places(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise ValueError("a bug")

    pipe = Pipe()
    run(pipe, Reply(fail, {}), Reply(lambda: b"b\n", {}))
    assert b'"line":1' in pipe.texts[0]
    assert b'"status":500' in pipe.texts[0]
    assert pipe.texts[1] == b"b\n"


def test_silence_names_the_rows_that_failed() -> None:
    window, failed = Window(), []
    silence = Silence(window, lambda chunk, index, problem: failed.append((chunk.first + index, problem.detail)))
    chunk = Chunk(5, 3, 0)
    assert window.enter(chunk)
    silence.put(chunk, Reply(bytes, {}, {2: Problem(400, "late"), 0: Problem(400, "early")}))
    assert failed == [(5, "early"), (7, "late")]
    assert window.idle


def test_all_is_written_whatever_the_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def write(_: int, text: memoryview) -> int:
        taken.append(bytes(text[:3]))
        return len(taken[-1])

    monkeypatch.setattr("os.write", write)
    write_all(1, b"abcdefgh")
    assert taken == [b"abc", b"def", b"gh"]
