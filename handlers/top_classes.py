"""The k best classes of each row of scores.

Pure values, safe on any thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowserve.graphs.rows import Array


def top_classes(scores: Array, k: int) -> NDArray[np.intp]:
    """For `scores` [rows, classes]: the indices [rows, min(k, classes)] of the largest, largest first.

    Of equal scores the lower index comes first, whatever company the row came in; NaN counts as least.
    """
    classes = scores.shape[1]
    k = min(k, classes)
    ranked = rankable(scores)
    if k in (0, classes) or classes < 64:
        return np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    picked = np.sort(np.argpartition(ranked, classes - k, axis=1)[:, classes - k :], axis=1)
    values = np.take_along_axis(ranked, picked, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(picked, order, axis=1)
    tied = np.count_nonzero(ranked >= values.min(axis=1, keepdims=True), axis=1) > k
    for row in np.flatnonzero(tied):  # the partition took any of those that tie for the last place
        best[row] = np.argsort(-ranked[row], kind="stable")[:k]
    return best


def rankable(scores: Array) -> NDArray[Any]:
    """Floats without NaN, which can be negated."""
    if scores.dtype.name not in ("float32", "float64"):
        scores = scores.astype(np.float64)
    missing = np.isnan(scores)
    return np.where(missing, -np.inf, scores) if missing.any() else scores
