from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rowserve.graphs.made_up_rows import kinds, make_up, picture
from rowserve.graphs.signature import NUMERIC, STRING, Signature, TensorSpec

SPECS = st.builds(
    TensorSpec,
    st.sampled_from("abc"),
    st.sampled_from(sorted({*NUMERIC, STRING})),
    st.none() | st.lists(st.none() | st.integers(1, 3), max_size=2).map(tuple),
    st.booleans(),
)


@given(st.lists(SPECS, max_size=3, unique_by=lambda spec: spec.name), st.integers(1, 4))
def test_every_kind_fits_the_signature_and_is_the_same_each_time(specs: list[TensorSpec], count: int):
    signature = Signature("s", tuple(specs), ())
    found = list(kinds(signature))
    assert found
    assert len(set(found)) == len(found)
    for kind in (kind for kind in found if kind.free <= 32):
        rows, again = make_up(signature, kind, count), make_up(signature, kind, count)
        for spec in specs:
            array = (rows.arrays if spec.batched else rows.static)[spec.name]
            shape = array.shape[1:] if spec.batched else array.shape
            assert spec.accepts(shape)
            assert array.dtype == spec.numpy_dtype
            assert not spec.batched or len(array) == count == rows.count
            other = (again.arrays if spec.batched else again.static)[spec.name]
            assert np.array_equal(array, other)


def test_rows_differ_and_texts_differ_in_their_number_of_words():
    signature = Signature("s", (TensorSpec("t", STRING, ()), TensorSpec("x", "float32", (3,))), ())
    rows = make_up(signature, next(iter(kinds(signature))), 12)
    assert len(set(rows.arrays["t"])) == 12
    assert len({text.count(b" ") for text in rows.arrays["t"]}) > 2
    assert len({row.tobytes() for row in rows.arrays["x"]}) == 12


def test_static_inputs_do_not_hang_on_the_number_of_rows():
    signature = Signature("s", (TensorSpec("t", "float32", (), False), TensorSpec("x", "float32", (3,))), ())
    kind = next(iter(kinds(signature)))
    assert make_up(signature, kind, 2).static["t"] == make_up(signature, kind, 7, seed=5).static["t"] != 0


def test_a_made_up_picture_is_one():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with Image.open(io.BytesIO(picture(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)
