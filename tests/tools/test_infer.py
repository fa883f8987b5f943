"""`infer` as a process: order, bad lines, resuming, signals, exit codes. Its model only does arithmetic."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.cache.commits import Limits as WriteQueue
from rowserve.server.card import BatchCard
from tests.doubles import BROKEN
from tests.model_recipes import RECIPES
from tests.tools.processes import ARITHMETIC, REAL, arithmetic_model, one_line, rows, rowserve, started, told

CACHE_WORD = re.compile(rb'"cache":"[a-z]+"')


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return arithmetic_model(tmp_path / "models" / "arithmetic")


@pytest.fixture
def options(model: Path, tmp_path: Path) -> list[str]:
    return [str(model), "--cache", str(tmp_path / "cache")]


def answers(stdout: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def without_cache_words(stdout: bytes) -> bytes:
    return CACHE_WORD.sub(b"", stdout)


def test_lines_are_answered_in_order(options: list[str]) -> None:
    done = rowserve("infer", *options, lines=b"[1,2,3,4]\n[4,3,2,1]\n[1,2,3,4]")
    assert [a["line"] for a in answers(done.stdout)] == [1, 2, 3]
    assert [a["outputs"]["double"] for a in answers(done.stdout)] == [[2, 4, 6, 8], [8, 6, 4, 2], [2, 4, 6, 8]]
    assert told(done.stderr) == {"rows": 3, "computed": 2, "collapsed": 1}
    assert done.returncode == 0


def test_ten_thousand_lines_keep_their_order(options: list[str]) -> None:
    done = rowserve("infer", *options, "--outputs", "sum", lines=rows(10_000))
    found = answers(done.stdout)
    assert [a["line"] for a in found] == list(range(1, 10_001))
    assert [a["outputs"]["sum"] for a in found] == [3 * i + i % 7 for i in range(10_000)]


def test_a_second_run_is_all_hits_and_loads_no_model(options: list[str]) -> None:
    first = rowserve("infer", *options, lines=rows(1000))
    second = rowserve("infer", *options, lines=rows(1000), broken=True)
    assert told(second.stderr) == {"rows": 1000, "hit": 1000}
    assert second.returncode == 0
    assert second.stdout == first.stdout.replace(b'"computed"', b'"hit"')


def test_each_bad_line_has_its_error_and_the_next_goes_on(options: list[str], tmp_path: Path) -> None:
    junk = bytes(random.Random(1).randrange(256) for _ in range(500)).replace(b"\n", b"")
    bad = {
        b"hello there": 422,
        b"/nowhere/cat.jpg": 422,
        b"[1,2,3": 400,
        b'{"y":[1,2,3,4]}': 400,
        b"[1,2,3]": 400,
        b"[1,2,3,NaN]": 400,
        b"[[1],[2],[3],[4]]": 400,
        b"": 400,
        b"\x00\x01\x02": 400,
        b"\0" + junk: 400,
        b"[" + b"1," * (10 << 20) + b"1]": 413,
        b"[%d,0,0,0]" % BROKEN: 422,
    }
    lines = b"".join(line + b"\n[1,2,3,4]\n" for line in bad)
    done = rowserve("infer", *options, lines=lines)
    found = answers(done.stdout)
    assert [a["line"] for a in found] == list(range(1, 2 * len(bad) + 1))
    assert [a["error"]["status"] for a in found[::2]] == list(bad.values())
    assert all(a["error"]["title"] and a["error"]["detail"] for a in found[::2])
    assert [a["outputs"]["double"] for a in found[1::2]] == [[2, 4, 6, 8]] * len(bad)
    assert told(done.stderr)["failed"] == len(bad)
    assert done.returncode == 1


def test_a_typed_line_is_answered_at_once(options: list[str]) -> None:
    with started("infer", *options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(b"[%d,0,0,0]\n" % number)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["outputs"]["double"] == [2 * number, 0, 0, 0]
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0


@pytest.mark.slow
def test_a_killed_run_is_resumed(options: list[str], tmp_path: Path) -> None:
    count = 24_000
    lines = rows(count)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines)
    whole = rowserve("infer", *options, "--no-cache", lines=lines)
    assert whole.returncode == 0
    points = random.Random(5)
    for _ in range(5):
        read = points.randrange(1, count)
        printed = killed_after(options, file, read)
        again = rowserve("infer", *options, lines=lines)
        assert again.returncode == 0
        assert without_cache_words(again.stdout) == without_cache_words(whole.stdout)
        rerun = sum(a["cache"] != "hit" for a in answers(again.stdout)[:printed])
        assert rerun <= WriteQueue().rows + BatchCard().max_rows
        purge(options)


@pytest.mark.slow
def test_in_exact_mode_a_killed_run_is_resumed_byte_for_byte(tmp_path: Path) -> None:
    model = RECIPES["dense"](tmp_path / "dense")  # alone, a row of this has other last bits than in a batch
    (model / "rowserve.toml").write_text("[cache]\nexact = true\n")
    numbers = np.random.default_rng(3).normal(size=(6000, 512)).round(2)
    lines = b"".join(json.dumps(row.tolist()).encode() + b"\n" for row in numbers)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines)
    options = [str(model), "--cache", str(tmp_path / "cache")]
    killed_after(options, file, 3000, program=REAL)  # the first commits are behind it
    again = rowserve("infer", *options, lines=lines, program=REAL)
    outcomes = [answer["cache"] for answer in answers(again.stdout)]
    assert {"hit", "computed"} <= set(outcomes)
    whole = rowserve("infer", str(model), "--cache", str(tmp_path / "other"), lines=lines, program=REAL)
    assert whole.returncode == 0
    assert without_cache_words(again.stdout) == without_cache_words(whole.stdout)


def killed_after(options: list[str], file: Path, read: int, program: str = ARITHMETIC) -> int:
    """Kills a run once it has printed so many lines; how many it had."""
    with (
        file.open("rb") as lines,
        started("infer", *options, program=program, stdin=lines, stderr=subprocess.DEVNULL) as process,
    ):
        assert process.stdout is not None
        for _ in range(read):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        return read + process.stdout.read().count(b"\n")


def purge(options: list[str]) -> None:
    done = rowserve("cache", "purge", "--yes", *options[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_what_was_answered_is_kept(options: list[str], number: int) -> None:
    with started("infer", *options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[1,2,3,4]\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert process.stdout.read() == b""
        assert process.stderr is not None
        assert told(process.stderr.read()) == {"rows": 1, "computed": 1}
    again = rowserve("infer", *options, lines=b"[1,2,3,4]\n", broken=True)
    assert told(again.stderr) == {"rows": 1, "hit": 1}


def test_a_reader_that_goes_away_ends_the_run_quietly(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(rows(50_000))
    with file.open("rb") as lines, started("infer", *options, stdin=lines) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_full_disk_under_the_answers_is_told_in_one_line(options: list[str]) -> None:
    with Path("/dev/full").open("wb") as full, started("infer", *options, stdout=full) as process:
        _, stderr = process.communicate(rows(10))
    assert process.returncode == 2
    assert b"the answers cannot be written" in stderr.splitlines()[0]
    assert b"Traceback" not in stderr


def test_a_dry_run_counts_and_computes_nothing(options: list[str]) -> None:
    unknown = rowserve("infer", *options, "--dry-run", lines=rows(5), broken=True)
    assert b"5 rows: 0 hits, 5 would be computed" in unknown.stderr
    rowserve("infer", *options, lines=rows(300))
    known = rowserve("infer", *options, "--dry-run", lines=rows(500) + b"junk\n", broken=True)
    assert (known.stdout, known.returncode) == (b"", 1)
    assert one_line(known.stderr) == "rowserve: 501 rows: 300 hits, 200 would be computed, 1 would fail"
    again = rowserve("infer", *options, lines=rows(500))
    assert told(again.stderr) == {"rows": 500, "hit": 300, "computed": 200}


def test_without_a_cache_nothing_is_found_or_kept(options: list[str]) -> None:
    for _ in range(2):
        done = rowserve("infer", *options, "--no-cache", lines=rows(100))
        assert told(done.stderr) == {"rows": 100, "computed": 100}
    assert not Path(options[2]).exists()


def test_a_model_that_breaks_when_a_row_is_missing_is_told_in_one_line(options: list[str]) -> None:
    rowserve("infer", *options, lines=rows(10))
    done = rowserve("infer", *options, lines=rows(2000), broken=True)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"broken for a test" in done.stderr.splitlines()[0]


@pytest.mark.parametrize("first_time", [True, False])
def test_a_model_that_does_not_load_is_told_in_one_line(options: list[str], first_time: bool) -> None:
    if not first_time:
        rowserve("infer", *options, lines=rows(1))
    done = rowserve("infer", *options, lines=rows(10, first=5), broken=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert "broken for a test" in one_line(done.stderr)


def test_a_wish_the_model_cannot_fulfil_is_told_in_one_line(options: list[str]) -> None:
    for wish in (["--outputs", "triple"], ["--top", "3"], ["--signature", "other"]):
        done = rowserve("infer", *options, *wish, lines=rows(1))
        assert (done.returncode, done.stdout) == (2, b"")
        assert "arithmetic" in one_line(done.stderr) or "double" in one_line(done.stderr)
