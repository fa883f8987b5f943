"""The best classes, whatever company a row comes in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.handlers.top_classes import top_classes

SCORES = hnp.arrays(
    st.sampled_from(["float32", "float64", "float16", "int32", "uint8", "bool"]),
    st.tuples(st.integers(0, 4), st.sampled_from([1, 3, 63, 64, 100])),
)


@given(SCORES, st.integers(0, 120))
def test_sorted_by_score_then_by_index(scores: np.ndarray, k: int):
    best = top_classes(scores, k)
    for row, indices in zip(scores.astype(np.float64), best, strict=True):
        ranked = np.where(np.isnan(row), -np.inf, row)
        wanted = sorted(range(len(row)), key=lambda i: (-ranked[i], i))[:k]
        assert indices.tolist() == wanted


def test_ties_at_the_last_place_go_to_the_lower_index():
    scores = np.zeros((2, 1000), np.float32)
    scores[1, 500:] = 1
    assert top_classes(scores, 3).tolist() == [[0, 1, 2], [500, 501, 502]]
