from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.graphs.tolerance import Likeness, likeness, same_bytes

EQUAL, ROUNDING, DIFFERENT = Likeness.EQUAL, Likeness.ROUNDING, Likeness.DIFFERENT


def f32(*values: float):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (f32(1, 2), f32(1, 2), EQUAL),
        (f32(1, 2), f32(1, 2 + 1e-5), EQUAL),
        (f32(0), f32(9e-7), EQUAL),
        (f32(1000, 0), f32(1000, 1e-4), ROUNDING),  # what a long sum does to its small neighbours
        (f32(1, 2), f32(1, 2.01), DIFFERENT),
        (f32(1), f32(1, 1), DIFFERENT),
        (f32(np.nan, 1), f32(np.nan, 1), EQUAL),
        (f32(np.nan, 1), f32(1, np.nan), DIFFERENT),
        (f32(np.inf), f32(np.inf), EQUAL),
        (f32(np.inf), f32(-np.inf), DIFFERENT),
        (f32(np.inf), f32(3e38), DIFFERENT),
        (f32(1), np.array([1.0]), DIFFERENT),
        (np.array([1, 2]), np.array([1, 2]), EQUAL),
        (np.array([100000]), np.array([100001]), DIFFERENT),
        (np.array([b"a"], object), np.array([b"a"], object), EQUAL),
        (np.array([b"a"], object), np.array([b"b"], object), DIFFERENT),
        (np.array([1.0], ml_dtypes.bfloat16), np.array([1.0078125], ml_dtypes.bfloat16), ROUNDING),
        (np.array([1.0], ml_dtypes.bfloat16), np.array([1.1], ml_dtypes.bfloat16), DIFFERENT),
        (np.array([1 + 1j]), np.array([1 + 1.1j]), DIFFERENT),
        (f32(), f32(), EQUAL),
    ],
)
def test_likeness(one, other, expected):
    assert likeness(one, other) is expected
    assert likeness(other, one) is expected


@given(hnp.arrays(np.float32, st.integers(0, 5)), hnp.arrays(np.float32, st.integers(0, 5)))
def test_same_bytes_tells_the_last_bit_and_the_sign_of_nothing(one, other):
    assert same_bytes(one, one.copy())
    assert same_bytes(one, other) == (one.tobytes() == other.tobytes() and one.shape == other.shape)
    assert not same_bytes(f32(0.0), f32(-0.0))
