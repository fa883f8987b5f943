"""The reader of PyTorch state dicts: both forms, transposed tensors, and the refusal of everything else."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.tools.torch_weights import MAGIC, PROTOCOL, BadWeights, read_state_dict

NUMBERS = np.arange(12, dtype="<f4")


class FakeStorage:
    """A storage as PyTorch names it in a pickle."""


class Reference:
    """What a pickle holds in a tensor's place: the rebuilding call and its arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Modules with PyTorch's names, as far as a state dict speaks of them."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage(FakeStorage):
        pass

    def _rebuild_tensor_v2(*_: Any) -> None:
        pass

    for thing, module in ((FloatStorage, torch), (_rebuild_tensor_v2, inner)):
        thing.__module__, thing.__qualname__ = module.__name__, thing.__name__
        setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(storage=FloatStorage, rebuild=_rebuild_tensor_v2)


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj if isinstance(obj, tuple) and obj[:1] == ("storage",) else None


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def state(torch: Any, offset: int = 0, shape: Any = (3, 4), strides: Any = (4, 1)) -> OrderedDict[str, Any]:
    storage = ("storage", torch.storage, "key0", "cpu", 12, None)
    return OrderedDict(a=Reference(torch.rebuild, storage, offset, shape, strides, False, OrderedDict()))


def stream(described: Any) -> bytes:
    head = [MAGIC, PROTOCOL, {"little_endian": True}, described, ["key0"]]
    return b"".join(pickled(part) for part in head) + struct.pack("<q", 12) + NUMBERS.tobytes()


def zipped(described: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as members:
        members.writestr("archive/data.pkl", pickled(described))
        members.writestr("archive/data/key0", NUMBERS.tobytes())
    return out.getvalue()


@pytest.mark.parametrize("form", [stream, zipped])
def test_both_forms_are_read(torch: Any, tmp_path: Path, form: Any) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(form(state(torch)))
    read = read_state_dict(file)
    assert list(read) == ["a"]
    np.testing.assert_array_equal(read["a"], NUMBERS.reshape(3, 4))


def test_a_tensor_may_lie_transposed_and_inside_its_storage(torch: Any, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(stream(state(torch, offset=2, shape=(2, 3), strides=(1, 2))))
    np.testing.assert_array_equal(read_state_dict(file)["a"], NUMBERS[2:8].reshape(3, 2).T)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (3, 4), (4, 1)),
        (0, (3, 5), (4, 1)),
        (-1, (3, 4), (4, 1)),
        (0, (3, 4), (4, -1)),
        (0, (3, 4), (40, 1)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    torch: Any, tmp_path: Path, offset: int, shape: Any, strides: Any
) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(stream(state(torch, offset, shape, strides)))
    with pytest.raises(BadWeights, match="beyond its storage"):
        read_state_dict(file)


def test_a_function_that_is_not_on_the_list_is_refused_and_not_called(tmp_path: Path) -> None:
    proof = tmp_path / "called"
    file = tmp_path / "w.pth"
    for form in (stream, zipped):
        file.write_bytes(form({"a": Reference(os.mkdir, str(proof))}))
        with pytest.raises(BadWeights, match="mkdir, which is refused"):
            read_state_dict(file)
    assert not proof.exists()


@pytest.mark.parametrize("junk", [b"", b"\x80\x02.", b"not a pickle", pickle.dumps(3)])
def test_junk_is_named_as_such(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(junk)
    with pytest.raises(BadWeights):
        read_state_dict(file)
