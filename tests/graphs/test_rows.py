from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.graphs.rows import COPIED, RowLayout, Rows, ShapesDiffer, gather
from rowserve.graphs.signature import NUMERIC, Signature, TensorSpec, numpy_dtype

dtypes = st.sampled_from(sorted(NUMERIC - {"bfloat16"}))
dimensions = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def tensors(draw: Any) -> tuple[list[TensorSpec], dict[str, Any], int]:
    """Specs (some with free shapes, some of strings) and arrays that fit them."""
    count = draw(st.integers(0, 4))
    specs, arrays = [], {}
    for name in draw(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3, unique=True)):
        shape = draw(dimensions)
        dtype = draw(st.one_of(dtypes, st.just("string")))
        if dtype == "string":
            size = count * int(np.prod(shape, dtype=int))
            values = np.empty(size, object)
            values[:] = draw(st.lists(st.binary(max_size=5), min_size=size, max_size=size))
            arrays[name] = values.reshape((count, *shape))
        else:
            arrays[name] = draw(hnp.arrays(numpy_dtype(dtype), (count, *shape)))
        declared = draw(
            st.one_of(
                st.just(shape),
                st.none(),
                st.tuples(*[st.sampled_from([None, d]) for d in shape]),
            )
        )
        specs.append(TensorSpec(name, dtype, declared))
    return specs, arrays, count


def same(one: Any, other: Any) -> bool:
    if one.dtype == object:
        assert all(type(element) is bytes for element in one.flat)
        return bool(one.shape == other.shape and one.tolist() == other.tolist())
    return bool(one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes())


@given(tensors())
def test_what_is_packed_is_unpacked_and_stacked_bit_for_bit(made):
    specs, arrays, count = made
    layout = RowLayout(specs)
    packed = layout.pack(arrays, count)
    assert len(packed) == count
    for index, row in enumerate(packed):
        unpacked = layout.unpack(bytes(row))
        assert sorted(unpacked) == sorted(arrays)
        assert all(same(unpacked[name], np.asarray(arrays[name][index], arrays[name].dtype)) for name in arrays)
    if count:
        stacked = layout.stack(packed)
        assert all(same(stacked[name], arrays[name]) for name in arrays)


@given(tensors(), tensors())
def test_two_different_rows_of_one_layout_never_share_their_bytes(one, other):
    specs, arrays, count = one
    layout = RowLayout([TensorSpec(spec.name, spec.dtype, None) for spec in specs])
    packed = {bytes(row) for row in layout.pack(arrays, count)}
    distinct = {
        repr([(s.name, arrays[s.name].shape[1:], bits(arrays[s.name], i)) for s in layout.specs]) for i in range(count)
    }
    assert len(packed) == len(distinct)


def bits(tensor: Any, index: int) -> Any:
    array = np.asarray(tensor[index], tensor.dtype)
    return array.tolist() if array.dtype == object else array.tobytes()


def test_twins_by_reshape_or_by_moving_a_border_differ():
    free = RowLayout([TensorSpec("x", "float32", None)])
    wide, tall = np.zeros((1, 30, 100), np.float32), np.zeros((1, 100, 30), np.float32)
    assert free.pack({"x": wide}, 1) != free.pack({"x": tall}, 1)
    words = RowLayout([TensorSpec("x", "string", (2,))])
    rows = np.empty((2, 2), object)
    rows[:] = [[b"ab", b"c"], [b"a", b"bc"]]
    first, second = words.pack({"x": rows}, 2)
    assert first != second


def test_one_large_fixed_tensor_is_packed_without_a_copy():
    width = COPIED // 4
    array = np.arange(3 * width, dtype=np.float32).reshape(3, width)
    packed = RowLayout([TensorSpec("x", "float32", (width,))]).pack({"x": array}, 3)
    array[1, 0] = 99
    assert np.frombuffer(packed[1], np.float32)[0] == 99


@given(tensors(), st.data())
def test_packed_bytes_that_were_cut_or_padded_are_refused(made, data):
    specs, arrays, count = made
    layout = RowLayout(specs)
    for row in map(bytes, layout.pack(arrays, count)):
        cut = data.draw(st.integers(0, max(len(row) - 1, 0)))
        for wrong in ([row[:cut]] if row else []) + [row + b"\0"]:
            with pytest.raises(ValueError):
                layout.unpack(wrong)


@pytest.mark.parametrize("names", [["x"], ["x", "y"]])
def test_arrays_that_do_not_hold_the_rows_are_refused(names):
    layout = RowLayout([TensorSpec(name, "float32", (2,)) for name in names])
    arrays = {name: np.zeros((3, 2), np.float32) for name in names}
    assert len(layout.pack(arrays, 3)) == 3
    for count in (1, 2, 4):
        with pytest.raises(ValueError, match="rows"):
            layout.pack(arrays, count)


def test_shapes_that_differ_cannot_be_stacked():
    layout = RowLayout([TensorSpec("x", "float32", (None,))])
    packed = [
        *layout.pack({"x": np.zeros((1, 2), np.float32)}, 1),
        *layout.pack({"x": np.zeros((1, 3), np.float32)}, 1),
    ]
    with pytest.raises(ShapesDiffer):
        layout.stack(packed)


def test_no_rows_stack_to_empty_arrays_of_the_right_dtype():
    stacked = RowLayout([TensorSpec("x", "int32", (2, None)), TensorSpec("s", "string", ())]).stack([])
    assert (stacked["x"].shape, stacked["s"].shape) == ((0, 2, 0), (0,))
    assert stacked["x"].dtype == np.int32


def test_bfloat16_keeps_its_bits():
    array = np.array([[1.5, -0.0]], ml_dtypes.bfloat16)
    layout = RowLayout([TensorSpec("x", "bfloat16", (2,))])
    assert layout.stack(layout.pack({"x": array}, 1))["x"].tobytes() == array.tobytes()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=12))
def test_gather_takes_rows_in_the_order_asked(places):
    sources = [Rows({"x": np.arange(5) + 10 * n, "y": np.arange(5.0) - n}, 5) for n in range(3)]
    gathered = gather([(sources[source], index) for source, index in places])
    assert gathered.count == len(places)
    assert gathered.arrays["x"].tolist() == [10 * source + index for source, index in places]
    assert gathered.arrays["y"].tolist() == [float(index - source) for source, index in places]


def test_gather_does_not_copy_a_run_of_neighbours():
    rows = Rows({"x": np.arange(5)}, 5)
    assert np.shares_memory(gather([(rows, 1), (rows, 2)]).arrays["x"], rows.arrays["x"])


def test_signatures_survive_their_plain_form():
    signature = Signature(
        "s",
        (TensorSpec("a", "float32", (None, 3)), TensorSpec("t", "string", (), batched=False)),
        (TensorSpec("b", "bfloat16", None),),
        "predict",
        4,
        "because",
    )
    assert Signature.from_plain(signature.to_plain()) == signature
    assert [spec.name for spec in signature.static_inputs] == ["t"]


def test_a_dtype_without_a_row_form_is_refused():
    with pytest.raises(ValueError, match="resource"):
        numpy_dtype("resource")
