from __future__ import annotations

import numpy as np
import pytest

from rowserve.graphs.batch_arrays import ALIGNMENT, SMALL, BatchArrays
from rowserve.graphs.rows import Rows, gather

WIDTH = SMALL // 4  # floats: two rows are large


def singles(*numbers: float) -> list[tuple[Rows, int]]:
    return [(Rows({"x": np.full((1, WIDTH), number, np.float32)}, 1), 0) for number in numbers]


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_memory_is_used_again_when_nobody_holds_on_to_it():
    arrays = BatchArrays()
    first = gather(singles(1, 2, 3), arrays.array).arrays["x"]
    where = address(first)
    assert first[:, 0].tolist() == [1, 2, 3]
    assert where % ALIGNMENT == 0
    del first
    again = gather(singles(4, 5), arrays.array).arrays["x"]
    assert address(again) == where
    assert again[:, -1].tolist() == [4, 5]


@pytest.mark.parametrize("keep", [lambda batch: batch, lambda batch: batch[1:], lambda batch: batch.data.cast("B")[8:]])
def test_what_is_kept_of_a_batch_stays_as_it_is(keep):
    arrays = BatchArrays()
    kept = keep(gather(singles(1, 2, 3), arrays.array).arrays["x"])
    before = bytes(kept)
    gather(singles(4, 5, 6), arrays.array)
    assert bytes(kept) == before


def test_small_batches_and_strings_have_new_memory():
    arrays = BatchArrays()
    assert arrays.array("x", np.zeros((1, 16), np.float32), 32) is None
    assert arrays.array("x", np.array([b"word"], object), 1 << 20) is None
    assert arrays.array("x", np.zeros((0, WIDTH), np.float32), 2) is None


def test_inputs_do_not_share_memory():
    arrays = BatchArrays()
    places = [(Rows({name: np.full((1, WIDTH), n, np.float32) for n, name in enumerate("ab")}, 1), 0) for _ in range(2)]
    rows = gather(places, arrays.array)
    assert (rows.arrays["a"] == 0).all()
    assert (rows.arrays["b"] == 1).all()


def test_what_a_session_keeps_of_its_feeds_stays_as_it_is():
    """TensorFlow takes aligned memory without a copy: an output passed through, and a variable, still lie in it."""
    from tests.graphs.pass_through import pass_through

    echo, read = pass_through(WIDTH)
    arrays = BatchArrays()
    out = echo(gather(singles(1, 2), arrays.array).arrays["x"])
    for _ in range(3):
        echo_of_others = gather(singles(8, 9), arrays.array).arrays["x"]
        assert out[:, 0].tolist() == [1, 2]
        assert read()[:, 0].tolist() == [1, 2]
        del echo_of_others
