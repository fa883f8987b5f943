from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowserve.handlers.problem import Problem
from rowserve.tools.line_reader import DescriptorLines
from rowserve.tools.progress import count_lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_a_line_is_passed_on_while_the_input_is_still_open(pipe: tuple[int, int]) -> None:
    groups = DescriptorLines(pipe[0]).groups()
    os.write(pipe[1], b"one\n")
    assert next(groups) == [b"one"]
    os.write(pipe[1], b"two\nthr")
    assert next(groups) == [b"two"]
    os.write(pipe[1], b"ee\n")
    assert next(groups) == [b"three"]


def test_a_pipe_that_runs_ahead_is_read_in_full_groups(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"".join(b"%d\n" % i for i in range(600)))
    os.close(pipe[1])
    groups = list(DescriptorLines(pipe[0]).groups())
    assert [len(group) for group in groups] == [256, 256, 88]
    assert [line for group in groups for line in group] == [b"%d" % i for i in range(600)]


def test_a_file_without_a_last_newline_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\r\n\nb")
    with (tmp_path / "lines").open("rb") as file:
        assert list(DescriptorLines(file.fileno()).groups()) == [[b"a", b"", b"b"]]


def test_a_line_too_long_stands_in_its_place_as_a_problem(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"a\n" + b"x" * 101 + b"\nb\n" + b"y" * 100)
    with (tmp_path / "lines").open("rb") as file:
        (group,) = DescriptorLines(file.fileno(), max_line=100).groups()
    assert isinstance(group[1], Problem)
    assert group[1].status == 413
    assert [group[0], group[2], group[3]] == [b"a", b"b", b"y" * 100]


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], False)
    lines = DescriptorLines(pipe[0])
    waits: list[bool] = []

    class Poll:
        def poll(self, *_: int) -> list[int]:
            if not waits:
                os.write(pipe[1], b"late\n")
            waits.append(True)
            return []

    lines._poll = Poll()  # type: ignore[assignment]
    assert next(lines.groups()) == [b"late"]
    assert waits


@pytest.mark.parametrize(("text", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)])
def test_lines_are_counted_from_where_the_file_stands(tmp_path: Path, text: bytes, lines: int) -> None:
    (tmp_path / "lines").write_bytes(b"skipped\n" + text)
    with (tmp_path / "lines").open("rb") as file:
        os.lseek(file.fileno(), 8, os.SEEK_SET)
        assert count_lines(file.fileno()) == lines
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 8
    assert count_lines(tmp_path / "lines") == lines + 1


def test_the_lines_of_a_pipe_are_not_counted(pipe: tuple[int, int]) -> None:
    assert count_lines(pipe[0]) is None
