from __future__ import annotations

import numpy as np
import pytest

from rowserve.graphs.errors import RowBroken
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.opening import open_v1, open_v2
from rowserve.graphs.runners import as_array, quickest
from rowserve.graphs.saved_model import read_saved_model
from tests.model_recipes import numbers

NAME = "serving_default"


class Clock:
    """Stands still but for what `takes` says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, *durations: float):
        """Something to run, that takes each of these in turn, and then the last for ever."""
        left = list(durations)

        def run(*_: object):
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return []

        return run


@pytest.mark.parametrize(
    ("one", "other", "first"), [((5,), (4,), False), ((4,), (5,), True), ((4,), (4,), True), ((9, 9, 2), (3,), True)]
)
def test_the_quickest_by_its_shortest_run(one, other, first: bool):
    clock = Clock()
    runs = [clock.run(*one), clock.run(*other)]
    assert quickest(runs, [], clock) is runs[not first]


def test_both_ways_to_run_answer_alike(model):
    found = read_saved_model(model("dense"), LoadSettings())
    graph = open_v1(found, LoadSettings())
    arrays = {"x": numbers(5, 512)}
    before = graph.call(NAME, arrays)["y"]
    fixed = graph._calls[NAME]
    for run in (fixed._run, fixed._inline):
        fixed._run = run
        assert np.array_equal(graph.call(NAME, arrays)["y"], before)
    graph.settle(NAME, arrays)
    assert np.array_equal(graph.call(NAME, arrays)["y"], before)
    graph.close()


@pytest.mark.parametrize("opener", [open_v1, open_v2])
def test_a_call_gives_arrays_whatever_their_rank_and_type(model, opener):
    for name, feed in (
        ("several_inputs", {"a": numbers(1, 3), "b": np.array([1]), "c": np.array([b"x"], object)}),
        ("no_row_input", {"start": np.int32(1), "stop": np.int32(3)}),
        ("mean_of_batch", {"x": numbers(2, 4)}),
    ):
        found = read_saved_model(model(name), LoadSettings())
        graph = opener(found, LoadSettings())
        answers = graph.call(NAME, feed)
        for spec in found.signatures[NAME].outputs:
            assert isinstance(answers[spec.name], np.ndarray)
            assert answers[spec.name].dtype == spec.numpy_dtype
        graph.close()


@pytest.mark.parametrize("opener", [open_v1, open_v2])
def test_a_refused_value_is_the_row_s_fault_by_either_loader(model, opener):
    graph = opener(read_saved_model(model("parse_numbers"), LoadSettings()), LoadSettings())
    with pytest.raises(RowBroken, match="^StringToNumberOp could not correctly convert string: seven$"):
        graph.call(NAME, {"text": np.array([b"seven"], object)})
    graph.close()


def test_scalars_become_arrays():
    assert as_array(b"x", np.dtype(object)).item() == b"x"
    assert as_array(np.float32(1), np.dtype(np.float32)).dtype == np.float32
