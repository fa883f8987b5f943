"""Rows: named arrays that share their leading dimension, and the canonical bytes of one row.

Pure values, safe on any thread. The packed form serves twice: a row's inputs are hashed in it, and a row's outputs
are kept in it, so two rows that differ in anything never share it:

* every tensor's row shape known and numeric: the tensors' little-endian C-order bytes, in the order of their names;
* else, for each tensor: rank (u32), dimensions (u64 each), then its bytes; strings as length (u64) and bytes each.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowserve.graphs.signature import STRING, TensorSpec

Array = NDArray[Any]
Buffer = bytes | memoryview
Memory = Callable[[str, Array, int], "Array | None"]
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
SWAP = sys.byteorder != "little"
COPIED = 8192  # bytes of an array that are copied in less time than a view of them takes to make


class ShapesDiffer(ValueError):
    """Rows whose shapes differ cannot be stacked into one array."""


@dataclass(slots=True)  # not frozen: that makes it four times as dear, and every request makes some
class Rows:
    """`count` examples: each array [count, *row shape], native byte order, C order; strings are object arrays of bytes.

    `static` holds the inputs without the batch dimension, which all these rows share. Nobody changes it once made.
    """

    arrays: Mapping[str, Array]
    count: int
    static: Mapping[str, Array] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the batched arrays; strings by their contents."""
        return sum(array_bytes(array) for array in self.arrays.values())

    def slice(self, start: int, stop: int) -> Rows:
        """The rows from `start` up to `stop`, sharing memory."""
        return Rows({name: array[start:stop] for name, array in self.arrays.items()}, stop - start, self.static)


def new_memory(name: str, like: Array, count: int) -> Array | None:
    """None: a new array every time."""
    return None


def gather(places: Sequence[tuple[Rows, int]], memory: Memory = new_memory) -> Rows:
    """One Rows out of single rows of many: (rows, index) each. All must share row shapes and static inputs.

    A run of neighbours is taken as a slice; one run alone is not copied. `memory` gives the arrays to fill, by name, a
    row array and count, or None.
    """
    runs: list[tuple[Rows, int, int]] = []
    last, stop = None, -1
    for rows, index in places:
        if rows is last and index == stop:
            runs[-1] = (rows, runs[-1][1], index + 1)
        else:
            runs.append((rows, index, index + 1))
        last, stop = rows, index + 1
    first, count = places[0][0], len(places)
    if len(runs) == 1:
        return first.slice(runs[0][1], stop)
    arrays = {
        name: np.concatenate(
            [
                rows.arrays[name] if stop - start == rows.count else rows.arrays[name][start:stop]
                for rows, start, stop in runs
            ],
            out=memory(name, array, count),
        )
        for name, array in first.arrays.items()
    }
    return Rows(arrays, count, first.static)


def array_bytes(array: Array) -> int:
    """Bytes an array holds; of an object array, the bytes of its elements."""
    if array.dtype == object:
        return sum(map(len, array.flat))
    return array.nbytes


def little_endian(array: Array) -> Array:
    """`array` with little-endian bytes in C order (itself on the machines of today)."""
    array = np.ascontiguousarray(array)
    return array.byteswap() if SWAP and array.dtype != object else array


class RowLayout:
    """How one row of these tensors stands in bytes.

    Tensors come in the order of their names. `row_bytes` is the size of a packed row, None where it varies.
    Unpacked arrays are read-only views into the packed bytes. A packed row of another layout raises ValueError.
    """

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        self.specs = tuple(sorted(specs, key=lambda spec: spec.name))
        sizes = [spec.row_bytes for spec in self.specs]
        known = [size for size in sizes if size is not None]
        self.row_bytes: int | None = sum(known) if len(known) == len(sizes) else None
        self._only = self.specs[0].name if len(self.specs) == 1 else None

    @cached_property
    def _fixed(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int, int]]:
        """(name, dtype, row shape, first byte, byte after the last) of each tensor of a fixed layout."""
        fields, at = [], 0
        for spec in self.specs:
            size = spec.row_bytes or 0
            fields.append((spec.name, spec.numpy_dtype, tuple(d or 0 for d in spec.shape or ()), at, at + size))
            at += size
        return fields

    def pack(self, arrays: Mapping[str, Array], count: int) -> list[Buffer]:
        """The packed form of each of `count` rows: of a large tensor that is all there is, views without a copy.

        Raises ValueError for arrays that do not hold `count` rows of the specs' shapes.
        """
        size = self.row_bytes
        if size is None:
            return [self._pack_framed(arrays, index) for index in range(count)]
        if self._only is not None:
            array = arrays[self._only]
            view = array.tobytes() if array.nbytes <= COPIED and not SWAP else as_bytes(array)
            if len(view) != count * size:
                raise ValueError(f"{len(view)} bytes are not {count} rows of {size}")
            if count == 1:
                return [view]
            return [view[at : at + size] for at in range(0, count * size, size)] if size else [b""] * count
        views = [(as_bytes(arrays[spec.name]), spec.row_bytes or 0) for spec in self.specs]
        if any(len(view) != count * each for view, each in views):
            raise ValueError(f"the arrays do not hold {count} rows each")
        return [b"".join(view[i * size : (i + 1) * size] for view, size in views) for i in range(count)]

    def _pack_framed(self, arrays: Mapping[str, Array], index: int) -> bytes:
        parts: list[Buffer] = []
        for spec in self.specs:
            row = np.asarray(arrays[spec.name][index], dtype=spec.numpy_dtype)
            parts.append(U32.pack(row.ndim))
            parts.extend(U64.pack(dimension) for dimension in row.shape)
            if spec.dtype == STRING:
                for element in row.flat:
                    parts += (U64.pack(len(element)), element)
            else:
                parts.append(little_endian(row).tobytes())
        return b"".join(parts)

    def unpack(self, packed: Buffer) -> dict[str, Array]:
        """One row's tensors, each of its row shape."""
        if self.row_bytes is None:
            return self._unpack_framed(memoryview(packed))
        if len(packed) != self.row_bytes:
            raise ValueError(f"a packed row of {len(packed)} bytes where {self.row_bytes} belong")
        return {
            name: from_bytes(memoryview(packed)[start:stop], dtype, shape)
            for name, dtype, shape, start, stop in self._fixed
        }

    def _unpack_framed(self, packed: memoryview) -> dict[str, Array]:
        arrays, at = {}, 0
        try:
            for spec in self.specs:
                (rank,) = U32.unpack_from(packed, at)
                shape = struct.unpack_from(f"<{rank}Q", packed, at + 4)
                at += 4 + 8 * rank
                arrays[spec.name], at = read_tensor(packed, at, spec, shape)
        except struct.error as error:
            raise ValueError(f"a packed row ends too early: {error}") from None
        if at != len(packed):
            raise ValueError(f"a packed row has {len(packed) - at} bytes too many")
        return arrays

    def stack(self, packed: Sequence[Buffer], names: Iterable[str] | None = None) -> dict[str, Array]:
        """The rows as arrays [len(packed), *row shape], of all tensors or of the named ones.

        Raises ShapesDiffer where a tensor's row shapes differ.
        """
        wanted = None if names is None else set(names)
        if self.row_bytes is not None and packed:
            if any(len(row) != self.row_bytes for row in packed):
                raise ValueError("a packed row of another layout")
            table = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), self.row_bytes)
            return {
                name: from_bytes(as_bytes(table[:, start:stop]), dtype, (len(packed), *shape))
                for name, dtype, shape, start, stop in self._fixed
                if wanted is None or name in wanted
            }
        rows = [self.unpack(row) for row in packed]
        return {
            spec.name: stack_rows(spec, [row[spec.name] for row in rows])
            for spec in self.specs
            if wanted is None or spec.name in wanted
        }


def as_bytes(array: Array) -> memoryview:
    """The little-endian C-order bytes of a numeric array, without a copy where it has them already."""
    if not SWAP:
        try:
            return array.data.cast("B")  # the fast way; it knows neither gaps nor empty arrays nor bfloat16
        except (TypeError, ValueError):
            pass
    array = little_endian(array)
    if not array.size:
        return memoryview(b"")
    return array.reshape(-1).view(np.uint8).data


def from_bytes(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """An array over little-endian bytes."""
    array: Array = np.frombuffer(buffer, dtype).reshape(shape) if len(buffer) else np.zeros(shape, dtype)
    return array.byteswap() if SWAP else array


def read_tensor(packed: memoryview, at: int, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[Array, int]:
    """One framed tensor that starts at `at`, and where the next one starts. Raises ValueError when bytes miss."""
    size = 1
    for dimension in shape:
        size *= dimension
    if spec.dtype != STRING:
        stop = at + size * spec.numpy_dtype.itemsize
        if stop > len(packed):
            raise ValueError(f"a packed row ends inside {spec.name}")
        return from_bytes(packed[at:stop], spec.numpy_dtype, shape), stop
    if size * U64.size > len(packed) - at:
        raise ValueError(f"a packed row ends inside {spec.name}")
    elements = np.empty(size, dtype=object)
    for index in range(size):
        (length,) = U64.unpack_from(packed, at)
        at += U64.size
        if length > len(packed) - at:
            raise ValueError(f"a packed row ends inside {spec.name}")
        elements[index] = bytes(packed[at : at + length])
        at += length
    return elements.reshape(shape), at


def stack_rows(spec: TensorSpec, rows: Sequence[Array]) -> Array:
    """Rows of one tensor as one array. Raises ShapesDiffer."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise ShapesDiffer(f"{spec.name}: the rows' shapes differ: {', '.join(map(str, sorted(shapes)))}")
    shape = shapes.pop() if shapes else tuple(dimension or 0 for dimension in spec.shape or ())
    stacked = np.empty((len(rows), *shape), dtype=spec.numpy_dtype)
    for index, row in enumerate(rows):
        stacked[index, ...] = row  # the dots: else a single string would stand there as an array
    return stacked
