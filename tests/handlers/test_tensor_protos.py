from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rowserve.graphs.rows import array_bytes
from rowserve.graphs.signature import numpy_dtype
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import head, number
from rowserve.handlers.tensor_protos import NUMBERS, Budget, TensorProtoFault, read_tensor, tensor_parts
from rowserve.handlers.tensorflow_messages import TensorProto
from tests.mutations import MUTATIONS

FIELDS = {name: TensorProto.DESCRIPTOR.fields_by_number[field].name for name, (_, field) in NUMBERS.items()}  # type: ignore[attr-defined]
ROOM = 1 << 20
WORDS = st.binary(max_size=5) | st.sampled_from([b"", b"\0", b"a\0b", b"\xff\xfe", "ä".encode()])


def read(message: Any, room: int = ROOM) -> Any:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return read_tensor(memoryview(data), Budget(room))


def written(array: Any) -> bytes:
    return b"".join(tensor_parts(array))


def same(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(one.tolist() == other.tolist() if one.dtype == object else one.tobytes() == other.tobytes())


@st.composite
def arrays(draw: st.DrawFn, name: str) -> Any:
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    size = int(np.prod(shape))
    if name == "string":
        array = np.empty(size, object)
        array[:] = draw(st.lists(WORDS, min_size=size, max_size=size))
        return array.reshape(shape)
    dtype = numpy_dtype(name)
    if name == "bool":
        return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool).reshape(shape)
    raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    return np.frombuffer(raw, dtype).reshape(shape)


@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_every_dtype_comes_back_from_what_is_written(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    assert same(read(written(array)), array)


@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_what_is_written_is_what_protobuf_reads_with_one_value_an_element(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    message = TensorProto.FromString(written(array))
    assert message.dtype == NUMBERS[name][0]
    assert tuple(dim.size for dim in message.tensor_shape.dim) == array.shape
    assert message.tensor_content == b""
    values = list(getattr(message, FIELDS[name]))
    assert len(values) == array.size * (2 if array.dtype.kind == "c" else 1)
    assert message.SerializeToString() == written(array)
    assert same(read(message), array)


@pytest.mark.parametrize("name", NUMBERS)
@given(data=st.data())
def test_tensor_content_is_read(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays(name))
    if name == "string":
        sizes = b"".join(number(len(element)) for element in array.flat)
        content = sizes + b"".join(array.flat)
    else:
        content = array.tobytes()
    shape = {"dim": [{"size": size} for size in array.shape]}
    message = TensorProto(dtype=NUMBERS[name][0], tensor_shape=shape, tensor_content=content)
    assert same(read(message), array)


@pytest.mark.parametrize("name", NUMBERS)
def test_tensorflow_reads_what_is_written_and_is_read(name: str) -> None:
    from rowserve.graphs.engine import tensorflow

    tf = tensorflow()
    if name == "string":
        array = np.array([[b"a\0", b"\xff", b""]], dtype=object)
    else:
        array = np.arange(6).reshape(2, 3).astype(numpy_dtype(name))
    theirs = type(tf.make_tensor_proto(1.0)).FromString(written(array))
    assert same(np.asarray(tf.make_ndarray(theirs), array.dtype), array)
    for part in (array, array[:1, :1], array[0, 0], array[:0]):
        sent = tf.make_tensor_proto(part, dtype=tf.as_dtype(name))
        assert same(read(sent), np.asarray(part, array.dtype))


def tensor(name: str, shape: Any, **more: Any) -> Any:
    return TensorProto(dtype=NUMBERS[name][0], tensor_shape={"dim": [{"size": size} for size in shape]}, **more)


def test_the_last_value_stands_for_the_rest() -> None:
    assert read(tensor("float32", (2, 2), float_val=[1, 2])).tolist() == [[1, 2], [2, 2]]
    assert read(tensor("int8", (3,), int_val=[-5])).tolist() == [-5, -5, -5]
    assert read(tensor("complex64", (2,), scomplex_val=[1, 2])).tolist() == [1 + 2j, 1 + 2j]
    assert read(tensor("float16", (2,), half_val=[0x3C00])).tolist() == [1.0, 1.0]
    assert read(tensor("string", (2,), string_val=[b"x"])).tolist() == [b"x", b"x"]


def test_without_a_value_every_element_is_zero() -> None:
    assert read(tensor("float32", (2,))).tolist() == [0, 0]
    assert read(tensor("string", (2,))).tolist() == [b"", b""]
    assert read(tensor("bool", ())).tolist() is False


def test_lists_that_come_unpacked_or_in_pieces_are_whole() -> None:
    start = tensor("float32", (3,)).SerializeToString()
    one = np.float32(1).tobytes()
    unpacked = start + (b"\x2d" + one) * 3
    assert same(read(unpacked), np.ones(3, np.float32))
    in_pieces = start + head(5, 4) + one + head(5, 8) + one + one
    assert same(read(in_pieces), np.ones(3, np.float32))
    numbers = tensor("int64", (2,)).SerializeToString() + b"\x50" + number(300) + b"\x50" + number(-1)
    assert read(numbers).tolist() == [300, -1]


def test_a_list_and_tensor_content_are_views_of_the_message() -> None:
    array = np.arange(1000, dtype=np.float32)
    for message in (written(array), tensor("float32", (1000,), tensor_content=array.tobytes()).SerializeToString()):
        found = read_tensor(memoryview(message), Budget(0))
        assert np.shares_memory(found, np.frombuffer(message, np.uint8))


@pytest.mark.parametrize(
    "message",
    [
        TensorProto(),
        TensorProto(dtype=20),
        TensorProto(dtype=11),
        tensor("float32", (2,), tensor_content=b"\0" * 7),
        tensor("float32", (2,), tensor_content=b"\0" * 12),
        tensor("float32", (2,), float_val=[1, 2, 3]),
        tensor("string", (2,), string_val=[b"", b"", b""]),
        tensor("uint8", (1,), int_val=[256]),
        tensor("uint8", (1,), int_val=[-1]),
        tensor("float16", (1,), half_val=[65536]),
        tensor("float32", (-1,)),
        tensor("float32", (1,) * 40),
        tensor("string", (3,), tensor_content=b"\x01\x01"),
        tensor("string", (2,), tensor_content=b"\x01\x02ab"),
        tensor("string", (1 << 21,), tensor_content=b"\0" * (1 << 21)),
        tensor("string", (1,), tensor_content=b"\xff"),
        TensorProto(dtype=1, tensor_shape={"unknown_rank": True}),
        b"\x08",
        b"\x12\x02\x12\x05",
        tensor("float32", (1,)).SerializeToString() + head(5, 3) + b"abc",
        tensor("int64", (1,)).SerializeToString() + head(10, 1) + b"\xff",
    ],
)
def test_a_tensor_that_cannot_be_is_refused(message: Any) -> None:
    with pytest.raises(TensorProtoFault) as caught:
        read(message)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("name", "shape", "more"),
    [
        ("float32", (10**12,), {"float_val": [1]}),
        ("float32", (10**6, 10**6), {}),
        ("int8", (ROOM + 2,), {"int_val": [1]}),
        ("bool", (2**62, 2**62), {}),
        ("float32", (0, 2**62, 2**62), {}),
        ("string", (10**12,), {"string_val": [b"a"]}),
        ("string", (1000,), {"string_val": [b"a" * 5000]}),
    ],
)
def test_a_shape_that_claims_more_than_there_may_be_is_refused_at_once(name: str, shape: Any, more: Any) -> None:
    with pytest.raises(TensorProtoFault) as caught:
        read(tensor(name, shape, **more))
    assert caught.value.status == 413


def test_damaged_tensors_are_read_or_refused() -> None:
    chance = random.Random(8)
    whole = [
        written(np.arange(12, dtype=np.float32).reshape(3, 4)),
        written(np.array([300, -1, 5], np.int64)),
        written(np.array([b"abc", b"", b"\0"], object)),
        written(np.array([1, 2], np.float16)),
        tensor("float64", (2, 2), double_val=[1.5]).SerializeToString(),
        tensor("string", (2,), tensor_content=b"\x01\x02abc").SerializeToString(),
    ]
    refused = 0
    for _ in range(MUTATIONS):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 5))
                case _:
                    del data[at : at + chance.randrange(1, 5)]
        try:
            assert array_bytes(read(bytes(data))) <= ROOM + len(data)
        except Problem as problem:
            assert problem.status in (400, 413)  # noqa: PT017
            refused += 1
    assert 0.1 * MUTATIONS < refused < MUTATIONS
