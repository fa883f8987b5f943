from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import ModelFace, Picture
from rowserve.handlers.ndjson import Mode
from rowserve.handlers.problem import Problem
from rowserve.tools.feed import Chunk
from rowserve.tools.groups import Columns, Lines, Paths
from rowserve.tools.local_door import BadSource, Parser, column
from rowserve.tools.picture_files import read_file
from tests.doubles import arithmetic_signature


class AnyPicture:
    """A decoder that is never asked to decode."""

    identity = b"any"

    def peak_bytes(self, upload: Any) -> int:
        return len(upload)

    def decode(self, upload: Any) -> Rows:
        raise AssertionError


def parser(signature: Signature, *, pictures: bool = False, largest_file: int = 1000, encoded: bool = True) -> Parser:
    decoders = {signature.name: AnyPicture()} if pictures else {}
    face = ModelFace("m", 1, {signature.name: signature}, None, decoders)
    return Parser(face, signature, largest_file=largest_file, encoded=encoded)


def shape(chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    return [(chunk.first, chunk.rows) for chunk in chunks]


def lines(*texts: bytes, mode: Mode = Mode.AUTO) -> Lines:
    return Lines(texts, mode)


def test_lines_of_one_kind_are_one_item_of_one_chunk() -> None:
    groups = [lines(b"[1,2,3,4]", b"[5,6,7,8]"), lines(b"[9,9,9,9]")]
    first, second = parser(arithmetic_signature()).chunks(groups)
    (rows,) = first.items
    assert isinstance(rows, Rows)
    assert rows.arrays["x"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert shape([first, second]) == [(1, 2), (3, 1)]
    assert first.names is None


def test_bad_lines_keep_their_places() -> None:
    (chunk,) = parser(arithmetic_signature()).chunks([lines(b"[1,2,3,4]", b"junk", b"[1]", b"[5,6,7,8]")])
    assert [isinstance(item, Problem) for item in chunk.items] == [False, True, True, False]
    assert chunk.rows == 4


def test_rows_that_run_alone_are_a_line_each() -> None:
    (chunk,) = parser(arithmetic_signature(alone="a reason")).chunks([lines(b"[1,2,3,4]", b"[5,6,7,8]")])
    assert [type(item) for item in chunk.items] == [Rows, Rows]
    assert chunk.rows == 2


def test_large_answers_make_small_chunks() -> None:
    large = Signature("s", (TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1 << 19,)),))
    chunks = list(parser(large, encoded=False).chunks([lines(*[b"[1]"] * 9)]))
    assert shape(chunks) == [(1, 3), (4, 3), (7, 3)]
    assert all(chunk.nbytes >= chunk.rows << 21 for chunk in chunks)
    assert shape(list(parser(large).chunks([lines(*[b"[1]"] * 2)]))) == [(1, 1), (2, 1)]


def test_pictures_are_read_and_named_32_at_a_time(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(40)]
    for path in paths:
        Path(path).write_bytes(path.encode())
    chunks = list(parser(arithmetic_signature(), pictures=True).chunks([Paths(paths)]))
    assert shape(chunks) == [(1, 32), (33, 8)]
    assert [name for chunk in chunks for name in chunk.names or ()] == paths
    uploads = [item.upload for chunk in chunks for item in chunk.items if isinstance(item, Picture)]
    assert uploads == [path.encode() for path in paths]


def test_paths_and_rows_may_stand_side_by_side(tmp_path: Path) -> None:
    cat = tmp_path / "cat.jpg"
    cat.write_bytes(b"cat")
    (chunk,) = parser(arithmetic_signature(), pictures=True).chunks(
        [lines(b"[1,2,3,4]", str(cat).encode(), b"/nowhere.jpg", b"[1,2,3,4]")]
    )
    assert [type(item) for item in chunk.items] == [Rows, Picture, Problem, Rows]
    assert chunk.names == [None, str(cat), "/nowhere.jpg", None]


def test_a_model_without_pictures_opens_no_file(tmp_path: Path) -> None:
    (chunk,) = parser(arithmetic_signature()).chunks([Paths([str(tmp_path)])])
    (item,) = chunk.items
    assert isinstance(item, Problem)
    assert "takes no pictures" in item.detail


def test_a_nameless_array_is_the_only_inputs() -> None:
    made = parser(arithmetic_signature())
    (chunk,) = made.chunks([Columns({"": np.ones((2, 4))}, 2)])
    (rows,) = chunk.items
    assert isinstance(rows, Rows)
    assert rows.arrays["x"].dtype == np.float32
    with pytest.raises(BadSource, match="the inputs are x; the file has 'z'"):
        list(made.chunks([Columns({"z": np.ones((2, 4))}, 2)]))


@pytest.mark.parametrize(
    ("dtype", "array", "fits"),
    [
        ("float32", np.array([1.5], np.float64), True),
        ("float32", np.array([1], np.int64), True),
        ("float32", np.array([1], np.uint8), True),
        ("float64", np.array([1], np.float32), True),
        ("int32", np.array([1], np.int64), False),
        ("int64", np.array([1], np.int32), True),
        ("int64", np.array([1.5]), False),
        ("uint8", np.array([-1], np.int8), False),
        ("bool", np.array([1], np.uint8), False),
        ("float32", np.array([1j]), False),
        ("string", np.array(["é"]), True),
        ("string", np.array([b"\xff"]), True),
        ("string", np.array([1]), False),
    ],
)
def test_an_array_is_taken_where_nothing_of_it_is_lost(dtype: str, array: Any, fits: bool) -> None:
    spec = TensorSpec("x", dtype, ())
    if not fits:
        with pytest.raises(BadSource, match=dtype if dtype != "string" else "strings"):
            column(spec, array)
        return
    taken = column(spec, array)
    assert taken.dtype == spec.numpy_dtype
    if dtype == "string":
        assert isinstance(taken[0], bytes)
    else:
        assert taken.tolist() == array.tolist()


# Files


def test_a_file_is_read_whole_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(b"x" * 100)
    assert read_file(str(file), 100) == b"x" * 100
    refused = read_file(str(file), 99)
    assert isinstance(refused, Problem)
    assert refused.status == 413


@pytest.mark.parametrize(
    ("name", "status"),
    [("nowhere", 404), ("file/below", 404), ("folder", 422), ("pipe", 422), ("a\0b", 422), ("x" * 300, 422)],
)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, name: str, status: int) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # to open it for reading would wait for a writer
    refused = read_file(f"{tmp_path}/{name}", 10)
    assert isinstance(refused, Problem)
    assert refused.status == status
    assert refused.detail


def test_a_device_is_not_read() -> None:
    refused = read_file("/dev/zero", 10)
    assert isinstance(refused, Problem)
    assert refused.status == 422
