from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.proto_tables import ProtoTable, message_classes
from rowserve.handlers.proto_wire import (
    BLOCK,
    FIXED32,
    FIXED64,
    LENGTH,
    MOST_FIELDS,
    VARINT,
    WireFault,
    fields,
    head,
    number,
    packed,
    signed,
    unpacked,
)

LISTS = {
    "int64": "repeated int64 list = 1",
    "int32": "repeated int32 list = 1",
    "int16": "repeated int32 list = 1",
    "uint8": "repeated int32 list = 1",
    "uint32": "repeated uint32 list = 1",
    "uint64": "repeated uint64 list = 1",
    "bool": "repeated bool list = 1",
}
KINDS = message_classes(
    ProtoTable("kinds", LISTS),
    ProtoTable("all", {"All": "int64 a = 1; repeated string b = 2; float c = 3; double d = 400; bytes e = 5"}),
)


def view(data: bytes) -> memoryview:
    return memoryview(data)


def test_fields_come_as_they_stand() -> None:
    message = KINDS["all.All"](a=-2, b=["x", ""], c=1.5, d=2.5, e=b"\0" * 300)
    found = fields(view(message.SerializeToString()))
    assert [(at, kind, signed(value), bytes(data)) for at, kind, value, data in found] == [
        (1, VARINT, -2, b""),
        (2, LENGTH, 0, b"x"),
        (2, LENGTH, 0, b""),
        (3, FIXED32, 0, np.float32(1.5).tobytes()),
        (5, LENGTH, 0, b"\0" * 300),
        (400, FIXED64, 0, np.float64(2.5).tobytes()),
    ]


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x0a", b"\x0a\x05abcd", b"\x08", b"\x08\xff", b"\x0d\0\0\0", b"\x0b", b"\x0c", b"\x0e", b"\x02\x00"),
        *(b"\x08" + b"\xff" * 10 + b"\x01", b"\x0a" + b"\xff" * 9 + b"\x01", b"\xff" * 11),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(WireFault):
        list(fields(view(data)))


def test_a_message_of_millions_of_fields_is_refused() -> None:
    with pytest.raises(WireFault, match="too many"):
        for _ in fields(view(b"\x1a\x00" * (MOST_FIELDS + 1))):
            pass


@pytest.mark.parametrize("name", LISTS)
@given(data=st.data())
def test_packed_numbers_are_those_of_protobuf(name: str, data: st.DataObject) -> None:
    dtype = np.dtype(name)
    of = st.booleans() if name == "bool" else st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max) | st.integers(0, 99)
    array = np.array(data.draw(st.lists(of, min_size=1, max_size=20)), dtype)
    real = KINDS[f"kinds.{name}"](list=array.tolist()).SerializeToString()
    written = packed(array)
    assert head(1, len(written)) + written == real
    read = unpacked(view(written), dtype)
    assert read.dtype == dtype
    assert read.tolist() == array.tolist()


def test_numbers_go_over_the_edges_of_blocks() -> None:
    numbers = np.random.default_rng(1).integers(-(2**62), 2**62, BLOCK + 5) >> np.arange(BLOCK + 5) % 60
    real = KINDS["kinds.int64"](list=numbers.tolist()).SerializeToString()
    written = packed(numbers)
    assert head(1, len(written)) + written == real
    assert (unpacked(view(written), np.dtype(np.int64)) == numbers).all()


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (b"\x80", "int64"),
        (b"\x01\x80", "int64"),
        (b"\x80" * 10 + b"\x01", "int64"),
        (b"\x80" * (BLOCK + 1) + b"\x01", "int64"),
        (b"\xac\x02", "uint8"),
        (number(-1), "uint32"),
        (number(2**31), "int32"),
        (number(-129), "int8"),
    ],
)
def test_numbers_that_do_not_end_or_do_not_fit_are_refused(data: bytes, dtype: str) -> None:
    with pytest.raises(WireFault):
        unpacked(view(data), np.dtype(dtype))
