"""`infer` and `warm` through a server: the lines and exit codes of a local run. Whole processes, but no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.processes import arithmetic_model, one_line, rows, rowserve, server, told

BAD = b"[1,2,3\n\n[1,2,3]\n\0\n[1,NaN,2,3]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    model = arithmetic_model(home / "models" / "arithmetic")
    with server("--models", str(model.parent), "--cache", str(home / "cache")) as url:
        yield url


def test_the_answers_are_those_of_a_local_run(url: str, home: Path, tmp_path: Path) -> None:
    lines = rows(2000) + BAD + rows(100)
    local = rowserve("infer", str(home / "models" / "arithmetic"), "--cache", str(tmp_path), lines=lines)
    remote = rowserve("infer", "arithmetic", "--server", url, lines=lines)
    again = rowserve("infer", "arithmetic/1", "--server", url + "/", lines=lines)
    theirs, ours = ([json.loads(line) for line in done.stdout.splitlines()] for done in (remote, local))
    assert [row["line"] for row in theirs] == list(range(1, 2106))
    for one, other in zip(theirs, ours, strict=True):
        if "error" in other:
            assert one["error"]["status"] == other["error"]["status"]
        else:
            assert one["outputs"] == other["outputs"]
    assert (told(remote.stderr)["computed"], told(remote.stderr)["failed"]) == (2000, 5)
    assert told(again.stderr) == {"rows": 2105, "hit": 2100, "failed": 5}
    assert (local.returncode, remote.returncode, again.returncode) == (1, 1, 1)


def test_warm_through_a_server_is_on_disk_when_it_ends(url: str, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(rows(700, first=10_000))
    done = rowserve("warm", "arithmetic", str(file), "--server", url)
    assert (told(done.stderr), done.returncode) == ({"rows": 700, "computed": 700}, 0)
    model, cache = str(home / "models" / "arithmetic"), str(home / "cache")
    local = rowserve("infer", model, "--cache", cache, lines=rows(700, first=10_000), broken=True)
    assert told(local.stderr) == {"rows": 700, "hit": 700}


def test_a_missing_file_has_its_error_in_its_place(url: str) -> None:
    done = rowserve("infer", "arithmetic", "--server", url, lines=b"/nowhere.jpg\n[1,2,3,4]\n")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["line"], first["input"], first["error"]["status"]) == (1, "/nowhere.jpg", 404)
    assert second["outputs"]["double"] == [2, 4, 6, 8]


def test_what_cannot_start_is_told_in_one_line(url: str) -> None:
    for arguments, word in (
        (["nothing", "--server", url], "there is: arithmetic"),
        (["arithmetic", "--server", url, "--outputs", "no"], "has no output"),
        (["arithmetic", "--server", "http://127.0.0.1:1"], "no server"),
        (["arithmetic", "--server", "127.0.0.1:8080"], "http://HOST:PORT"),
        (["arithmetic", "--server", url, "--dry-run"], "leave --server out"),
    ):
        done = rowserve("infer", *arguments, lines=rows(1))
        assert (done.returncode, done.stdout) == (2, b"")
        assert word in one_line(done.stderr)
