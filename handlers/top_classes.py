"""The k best classes of each row of scores.

Pure values, safe on any thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rowserve.graphs.rows import Array

FEW = 64  # classes up to which sorting them all is the shorter way


def top_classes(scores: Array, k: int) -> NDArray[np.intp]:
    """For `scores` [rows, classes]: the indices [rows, min(k, classes)] of the largest, largest first.

    Of equal scores the lower index comes first, whatever company the row came in; NaN counts as least.
    """
    rows, classes = scores.shape
    k = min(k, classes)
    if scores.dtype.char not in "fd":  # a dtype's name costs 5 us
        scores = scores.astype(np.float64)  # can be negated, and NaN is told
    if not k:
        return np.empty((rows, 0), np.intp)
    if k == classes or classes <= FEW:
        return all_sorted(scores)[:, :k]
    if rows == 1:
        return top_of_row(scores[0], k)[None]
    line = np.arange(rows)[:, None]
    picked = np.argpartition(scores, classes - k, axis=1)[:, classes - k :]
    values = scores[line, picked]
    best = picked[line, np.lexsort((picked, -values), axis=1)]
    # The partition takes any of those that tie for the last place, and NaN first of all (then this counts 0).
    unsure = (scores >= values.min(axis=1, keepdims=True)).sum(axis=1) != k
    for row in np.flatnonzero(unsure):
        best[row] = all_sorted(scores[row : row + 1])[0, :k]
    return best


def top_of_row(scores: Array, k: int) -> NDArray[np.intp]:
    """The same for `scores` [classes], in half the time."""
    picked = np.argpartition(scores, -k)[-k:]
    least = scores[picked].min()
    if np.count_nonzero(scores >= least) != k:  # ties for the last place, or NaN
        return all_sorted(scores[None])[0, :k]
    picked.sort()
    best: NDArray[np.intp] = picked[np.argsort(-scores[picked], kind="stable")]
    return best


def all_sorted(scores: Array) -> NDArray[np.intp]:
    """The indices of every class, best first."""
    missing = np.isnan(scores)
    return np.argsort(-np.where(missing, -np.inf, scores) if missing.any() else -scores, axis=1, kind="stable")
