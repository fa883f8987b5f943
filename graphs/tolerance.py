"""When two answers are the same answer.

Pure, safe on any thread.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from rowserve.graphs.rows import Array

RTOL, ATOL = 1e-5, 1e-6
# Sums in another order: what is seen between batch sizes is some 1e-6 of the largest value; half types keep 8 to 11
# bits.
ROUNDING, HALF_ROUNDING = 1e-3, 2e-2
HALF_TYPES = ("float16", "bfloat16")


class Likeness(IntEnum):
    """How alike two arrays are.

    EQUAL: integers, strings, shapes and the places of NaN are equal, floats within RTOL + ATOL. ROUNDING: further
    apart, but by no more than another order of summing explains, measured by the largest value there is.
    """

    DIFFERENT = 0
    ROUNDING = 1
    EQUAL = 2


def likeness(one: Array, other: Array) -> Likeness:
    """How alike they are; symmetric."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return Likeness.DIFFERENT
    if not is_float(one):
        return Likeness.EQUAL if bool(np.array_equal(one, other)) else Likeness.DIFFERENT
    half = one.dtype.name in HALF_TYPES
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    a, b = one.astype(wide), other.astype(wide)
    if not np.array_equal(np.isnan(a), np.isnan(b)) or not np.array_equal(np.isinf(a), np.isinf(b)):
        return Likeness.DIFFERENT
    finite = np.isfinite(a) & np.isfinite(b)
    infinite = np.isinf(a)
    if not np.array_equal(a[infinite], b[infinite]):
        return Likeness.DIFFERENT
    a, b = a[finite], b[finite]
    apart, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
    if bool((apart <= ATOL + RTOL * size).all()):
        return Likeness.EQUAL
    share = HALF_ROUNDING if half else ROUNDING
    return Likeness.ROUNDING if float(apart.max()) <= share * float(size.max()) else Likeness.DIFFERENT


def is_float(array: Array) -> bool:
    """Whether its values can be rounded (numpy has no kind of its own for bfloat16)."""
    return array.dtype.kind in "fc" or array.dtype.name in HALF_TYPES


def same_bytes(one: Array, other: Array) -> bool:
    """Whether two arrays are the same to the last bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == object:
        return bool(np.array_equal(one, other))
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
