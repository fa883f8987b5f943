"""Damaged cache files: what a server makes of them, start after start. See damage.py and damaged_starts.py."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rowserve.cache import integrity
from rowserve.cache.meta_page import Damaged
from rowserve.cache.pages import FreeList
from tests.cache.damage import KINDS, MARKS, Seen, build, damaged_copy, free_list_pages, newest, tree_pages

ROOT = Path(__file__).parents[2]


def damaged_starts(files: int, first: int = 0) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own: it forks, and has no other thread."""
    command = [sys.executable, "-m", "tests.cache.damaged_starts", str(files), str(os.cpu_count() or 1), str(first)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def shown(done: subprocess.CompletedProcess[str]) -> list[int]:
    """The figures of the last line, once it is sure that nothing went wrong."""
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    return [int(word) for word in last.split()[1:]]


def test_no_damage_gives_a_wrong_row_or_fails_two_starts():
    files, aside, found, *_ = shown(damaged_starts(10))
    assert files == 10 * len(KINDS) * len(MARKS)
    assert aside > files // 3  # the damage was one
    assert found


@pytest.mark.slow
@pytest.mark.skipif("ROWSERVE_SOAK" not in os.environ, reason="takes half an hour; ROWSERVE_SOAK=1 runs it")
def test_no_damage_of_ten_thousand():
    assert shown(damaged_starts(1000))[0] == 1000 * len(KINDS) * len(MARKS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build(folder, 300)
    return folder


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_damage_is_one_behind_its_mark(whole, tmp_path, kind, mark):
    data = whole / integrity.ROWS / integrity.DATA
    for seed in range(5):
        damaged_copy(whole, tmp_path / "copy", kind, mark, random.Random(seed))
        rows = tmp_path / "copy" / integrity.ROWS
        assert (rows / integrity.DATA).read_bytes() != data.read_bytes()
        assert integrity.is_clean(rows) == (mark == "clean")
        assert integrity.walked_lately(rows)


def test_pages_of_the_free_list_are_those_that_count(whole):
    data = whole / integrity.ROWS / integrity.DATA
    content, meta = data.read_bytes(), newest(data)
    numbers = free_list_pages(content, meta)
    assert set(numbers) & set(tree_pages(content))
    torn = bytearray(content)
    for number in numbers:
        torn[number * 4096 : (number + 1) * 4096] = bytes(4096)
    with pytest.raises(Damaged):
        FreeList(Seen(bytes(torn), meta), meta.free).walk()
