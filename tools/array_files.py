"""Rows in .npy and .npz files, read piece by piece: a file larger than memory is no problem, and none is a pickle.

Reader thread; opening, on the main thread, reads the headers only.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from rowserve.graphs.rows import Array
from rowserve.tools.groups import Columns, Group

ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 8 << 20


class NpyFile:
    """An array of rows, for the only input of a model. Raises ValueError for what is none."""

    def __init__(self, path: Path) -> None:
        self._array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._array.ndim < 1:
            raise ValueError("a single number, where an array of rows belongs")

    def count(self) -> int:
        """See Source."""
        return len(self._array)

    def groups(self) -> Iterator[Group]:
        """See Source."""
        step = rows_at_once(self._array.nbytes // max(1, len(self._array)))
        for at in range(0, len(self._array), step):
            part = np.array(self._array[at : at + step])
            yield Columns({"": part}, len(part))


class NpzFile:
    """An array of rows for each input, by name, all of one length. Raises ValueError for what is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive, ExitStack() as stack:
                self._columns = [Column(stack.enter_context(archive.open(name)), name) for name in archive.namelist()]
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from None
        lengths = {column.count for column in self._columns}
        if len(lengths) != 1:
            told = ", ".join(f"{column.name} {column.count}" for column in self._columns)
            raise ValueError(f"its arrays must have the same number of rows, not {told or 'none'}")
        self._count = lengths.pop()

    def count(self) -> int:
        """See Source."""
        return self._count

    def groups(self) -> Iterator[Group]:
        """See Source."""
        try:
            yield from self._groups()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{self._path}: {str(error) or 'it ends too early'}") from None

    def _groups(self) -> Iterator[Group]:
        step = rows_at_once(sum(column.row_bytes for column in self._columns))
        with zipfile.ZipFile(self._path) as archive, ExitStack() as stack:
            names = [column.member for column in self._columns]
            columns = [Column(stack.enter_context(archive.open(name)), name) for name in names]
            for at in range(0, self._count, step):
                count = min(step, self._count - at)
                yield Columns({column.name: column.read(count) for column in columns}, count)


class Column:
    """One array of an .npz, read from front to back. `name` is its input's, `member` the file's in the archive."""

    def __init__(self, file: IO[bytes], member: str) -> None:
        self.member = member
        self.name = member.removesuffix(".npy")
        self._file = file
        version = npy.read_magic(file)
        read_header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, self._dtype = read_header(file)
        if self._dtype.hasobject:
            raise ValueError(f"{self.name} holds Python objects, which are not read; save it as numbers or strings")
        if not shape:
            raise ValueError(f"{self.name} is a single value, where an array of rows belongs")
        if by_columns and len(shape) > 1:
            raise ValueError(f"{self.name} is stored in Fortran order; save it with numpy.ascontiguousarray")
        self.count, self._row_shape = int(shape[0]), tuple(shape[1:])
        self.row_bytes = int(np.prod(self._row_shape, dtype=np.int64)) * self._dtype.itemsize

    def read(self, count: int) -> Array:
        """The next rows. Raises ValueError where the file ends before them."""
        content = self._file.read(count * self.row_bytes)
        if len(content) != count * self.row_bytes:
            raise ValueError(f"{self.name} ends too early")
        return np.frombuffer(content, self._dtype).reshape(count, *self._row_shape)


def rows_at_once(row_bytes: int) -> int:
    """Rows of a group."""
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, row_bytes)))
