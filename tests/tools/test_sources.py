from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from rowserve.handlers.ndjson import Mode
from rowserve.tools import array_files
from rowserve.tools.groups import Columns, Group, Lines, Paths
from rowserve.tools.sources import BadPlace, Sources


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/er/c.webp", "deep/d.jpeg", "deep/rows.jsonl"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return folder


def paths(groups: Iterable[Group]) -> list[str]:
    return [path for group in groups if isinstance(group, Paths) for path in group.paths]


def test_a_folder_gives_its_pictures_and_those_below_in_order(photos: Path) -> None:
    sources = Sources([str(photos)])
    names = [os.path.relpath(path, photos) for path in paths(sources.groups())]
    assert names == ["a.PNG", "b.jpg", "deep/d.jpeg", "deep/er/c.webp"]
    assert sources.count() == 4


def test_a_glob_gives_each_picture_once(photos: Path) -> None:
    found = paths(Sources([str(photos / "**" / "*.jp*g")]).groups())
    assert [Path(path).name for path in found] == ["b.jpg", "d.jpeg"]
    everything = paths(Sources([str(photos / "**")]).groups())
    assert len(everything) == len(set(everything)) == 4


def test_a_picture_may_be_named_itself_even_where_its_name_looks_like_a_glob(tmp_path: Path) -> None:
    odd = tmp_path / "a[1]*.jpg"
    odd.write_bytes(b"")
    assert paths(Sources([str(odd)]).groups()) == [str(odd)]


def test_a_file_is_taken_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"[1]\n[2]\n")
    (tmp_path / "list").write_bytes(b"a.jpg\nb.jpg")
    sources = Sources([str(tmp_path / "rows.jsonl"), str(tmp_path / "list")])
    first, second = sources.groups()
    assert isinstance(first, Lines)
    assert isinstance(second, Lines)
    assert (list(first.lines), first.mode) == ([b"[1]", b"[2]"], Mode.JSON)
    assert (list(second.lines), second.mode) == ([b"a.jpg", b"b.jpg"], Mode.PATHS)
    assert sources.count() == 4


def columns(groups: Iterable[Group]) -> list[Columns]:
    return [group for group in groups if isinstance(group, Columns)]


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool) -> None:
    monkeypatch.setattr(array_files, "ROWS_AT_ONCE", 3)
    a, b = np.arange(16.0).reshape(8, 2), np.array([f"word {i}" for i in range(8)])
    np.save(tmp_path / "a.npy", a)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "both.npz", a=a, b=b)
    sources = Sources([str(tmp_path / "a.npy"), str(tmp_path / "both.npz")])
    assert sources.count() == 16
    pieces = columns(sources.groups())
    assert [piece.count for piece in pieces] == [3, 3, 2] * 2
    assert np.concatenate([piece.arrays[""] for piece in pieces[:3]]).tolist() == a.tolist()
    assert np.concatenate([piece.arrays["a"] for piece in pieces[3:]]).tolist() == a.tolist()
    assert np.concatenate([piece.arrays["b"] for piece in pieces[3:]]).tolist() == b.tolist()


def test_large_rows_come_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_files, "BYTES_AT_ONCE", 100)
    np.savez(tmp_path / "a.npz", a=np.zeros((3, 50)))
    assert [piece.count for piece in columns(Sources([str(tmp_path / "a.npz")]).groups())] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "same number of rows"),
        ({"a": np.asfortranarray(np.zeros((3, 2)))}, "Fortran order"),
        ({"a": np.array(1.0)}, "single value"),
        ({"a": np.array([{}], object)}, "Python objects"),
        ({}, "same number of rows"),
    ],
)
def test_an_npz_that_cannot_be_read_is_told(tmp_path: Path, arrays: dict[str, np.ndarray], why: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(BadPlace, match=why):
        Sources([str(tmp_path / "a.npz")])


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_file_that_is_no_array_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no array at all")
    with pytest.raises(BadPlace, match=name):
        Sources([str(tmp_path / name)])


def test_a_truncated_npz_fails_while_it_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros((1000, 2)))
    sources = Sources([str(tmp_path / "a.npz")])
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:5000])
    with pytest.raises(ValueError, match=r"a\.npz"):
        list(sources.groups())


@pytest.mark.parametrize("place", ["nowhere", "*.jpg", "pipe"])
def test_what_is_not_there_is_told_by_name(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadPlace) as told:
        Sources([str(tmp_path / place)])
    assert place in str(told.value)
