"""Reading a PyTorch state dict into numpy arrays without PyTorch, on the caller's thread.

A state dict is a pickle, and a pickle may name any function to be called. This reader resolves five names,
none of which can do more than describe a tensor, and refuses every other one. It knows the two forms
PyTorch has written: a stream of pickles with the raw storages after them (before 1.6), and a zip of one
pickle and a member for each storage.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class BadWeights(ValueError):
    """The file is not a state dict that this reader knows."""


@dataclass(frozen=True)
class _Storage:
    """Where a tensor's numbers lie: the key of a raw storage, and their type."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the pickle describes it; its numbers are read afterwards."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, raw: bytes) -> NDArray[Any]:
        """Cut the tensor out of its storage's bytes; it may lie there transposed."""
        last = self.offset + sum(
            (length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True)
        )
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or (
            last + 1
        ) * self.storage.dtype.itemsize > len(raw):
            raise BadWeights("a tensor reaches beyond its storage")
        numbers = np.frombuffer(raw, self.storage.dtype)[self.offset :]
        steps = [stride * numbers.itemsize for stride in self.strides]
        return np.ascontiguousarray(as_strided(numbers, self.shape, steps, writeable=False))


class _StateDict(dict[str, Any]):
    """Stands in for OrderedDict, so that the metadata PyTorch hangs on it has a place to go."""


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Resolves what a state dict needs and nothing else."""

    ALLOWED: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): _StateDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        **{("torch", name): dtype for name, dtype in DTYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise BadWeights(f"the state dict asks for {module}.{name}, which is refused") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise BadWeights(f"unknown reference {kind!r}")
        return _Storage(str(key), dtype)


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Read every tensor of the file by its name; raise BadWeights where it is anything but a state dict."""
    data = path.read_bytes()
    try:
        described, raw = _from_zip(data) if zipfile.is_zipfile(path) else _from_stream(io.BytesIO(data))
        tensors = {name: value for name, value in described.items() if isinstance(value, _Tensor)}
        return {name: tensor.array(raw(tensor.storage)) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError) as error:
        raise BadWeights(f"{path} is not a state dict this reader knows: {error}") from error


def _from_zip(data: bytes) -> tuple[Mapping[str, Any], Callable[[_Storage], bytes]]:
    members = zipfile.ZipFile(io.BytesIO(data))
    stem = next(name for name in members.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    described = _Unpickler(members.open(f"{stem}data.pkl")).load()
    return described, lambda storage: members.read(f"{stem}data/{storage.key}")


def _from_stream(stream: IO[bytes]) -> tuple[Mapping[str, Any], Callable[[_Storage], bytes]]:
    magic, protocol, system, described, keys = (_Unpickler(stream).load() for _ in range(5))
    if (magic, protocol, system.get("little_endian")) != (MAGIC, PROTOCOL, True):
        raise BadWeights("its first words are not PyTorch's")
    widths = {
        tensor.storage.key: tensor.storage.dtype.itemsize
        for tensor in described.values()
        if isinstance(tensor, _Tensor)
    }
    raw = {key: stream.read(int.from_bytes(stream.read(8), "little") * widths[key]) for key in keys}
    return described, lambda storage: raw[storage.key]
