from __future__ import annotations

import pytest

from rowserve.graphs.batch_sizes import batch_size, batch_sizes


@pytest.mark.parametrize("most", [1, 7, 100, 256])
def test_sizes_are_few_and_hold_most_of_what_waits(most):
    sizes = [batch_size(waiting, most) for waiting in range(1, 1000)]
    assert all(min(waiting, most) * 0.8 < size <= min(waiting, most) for waiting, size in enumerate(sizes, 1))
    assert len(set(sizes)) <= 29
    assert batch_sizes(most) == sorted(set(sizes))
    assert batch_sizes(most)[-1] == most
