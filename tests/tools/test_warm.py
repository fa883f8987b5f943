"""`warm` as a process, and the cache that it shares. Its model does arithmetic instead of TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from rowserve.cache.commits import Limits as WriteQueue
from tests.tools.processes import arithmetic_model, one_line, rows, rowserve, server, told


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return arithmetic_model(tmp_path / "models" / "arithmetic")


@pytest.fixture
def options(model: Path, tmp_path: Path) -> list[str]:
    return [str(model), "--cache", str(tmp_path / "cache")]


def numbers(count: int) -> np.ndarray:
    return np.array([json.loads(line) for line in rows(count).splitlines()], np.float32)


def test_every_kind_of_source_makes_the_rows_that_infer_finds(options: list[str], tmp_path: Path) -> None:
    all_rows = numbers(1500)
    (tmp_path / "a.jsonl").write_bytes(rows(500))
    np.save(tmp_path / "b.npy", all_rows[500:900].astype(np.float64))
    np.savez(tmp_path / "c.npz", x=all_rows[900:1200])
    np.savez_compressed(tmp_path / "d.npz", x=all_rows[1200:])
    sources = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.npy"), str(tmp_path / "[cd].npz")]
    done = rowserve("warm", *options, *sources)
    assert (done.stdout, done.returncode) == (b"", 0)
    assert told(done.stderr) == {"rows": 1500, "computed": 1500}
    found = rowserve("infer", *options, lines=rows(1500), broken=True)
    assert told(found.stderr) == {"rows": 1500, "hit": 1500}


def test_rows_that_fail_are_named_and_the_others_kept(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"[1,2,3]\n" * 12 + rows(5))
    done = rowserve("warm", *options, str(file))
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("rowserve: row 1: ")
    assert lines[10] == "rowserve: ... and 2 more rows failed"
    assert told(done.stderr) == {"rows": 17, "computed": 5, "failed": 12}


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((5, 3), np.float32), "takes rows of shape [4]"),
        (np.zeros((5, 4), np.complex64), "takes float32"),
        (np.array(["a", "b"]), "takes rows of shape [4]"),
    ],
)
def test_an_array_that_does_not_fit_is_told(options: list[str], tmp_path: Path, array: np.ndarray, why: str) -> None:
    np.save(tmp_path / "a.npy", array)
    done = rowserve("warm", *options, str(tmp_path / "a.npy"))
    assert done.returncode == 2
    assert why in one_line(done.stderr)


def test_pickled_objects_are_refused(options: list[str], tmp_path: Path) -> None:
    objects = np.empty(3, object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=objects)
    for name in ("a.npy", "b.npz"):
        done = rowserve("warm", *options, str(tmp_path / name))
        assert done.returncode == 2
        assert name in one_line(done.stderr)


def test_a_source_that_is_not_there_is_told_in_one_line(options: list[str], tmp_path: Path) -> None:
    for place in ("nowhere.jsonl", "*.webp"):
        done = rowserve("warm", *options, str(tmp_path / place))
        assert done.returncode == 2
        assert place in one_line(done.stderr)


def test_a_dry_run_computes_nothing(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(rows(10))
    rowserve("warm", *options, str(file))
    file.write_bytes(rows(25))
    done = rowserve("warm", *options, str(file), "--dry-run", broken=True)
    assert one_line(done.stderr) == "rowserve: 25 rows: 10 hits, 15 would be computed"


def test_a_running_server_hits_what_warm_has_made_meanwhile(model: Path, options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(rows(300))
    with server("--model", f"arithmetic={model}", *options[1:]) as url:
        first = json.loads(urlopen(Request(f"{url}/rows/arithmetic", b"[9,9,9,9]\n")).read())
        assert first["cache"] == "computed"
        assert told(rowserve("warm", *options, str(file)).stderr) == {"rows": 300, "computed": 300}
        asked = Request(f"{url}/rows/arithmetic", rows(300))
        found = [json.loads(line) for line in urlopen(asked).read().splitlines()]
        assert {row["cache"] for row in found} == {"hit"}
        assert len(found) == 300
        assert told(rowserve("infer", *options, lines=b"[9,9,9,9]\n", broken=True).stderr) == {"rows": 1, "hit": 1}


def test_rows_that_come_faster_than_the_disk_takes_them_are_all_kept(options: list[str], tmp_path: Path) -> None:
    count = 2 * WriteQueue().rows + 1000
    file = tmp_path / "rows.jsonl"
    file.write_bytes(rows(count))
    done = rowserve("warm", *options, str(file))
    assert (told(done.stderr), done.returncode) == ({"rows": count, "computed": count}, 0)
    assert b"not all" not in done.stderr
    found = rowserve("warm", *options, str(file), broken=True)
    assert told(found.stderr) == {"rows": count, "hit": count}
