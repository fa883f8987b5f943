from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.errors import GraphError
from rowserve.graphs.exact_sizes import candidates, choose, exact_sizes
from rowserve.graphs.isolation import answer_batch
from rowserve.graphs.loading import LoadSettings, load
from rowserve.graphs.made_up_rows import kinds
from rowserve.graphs.rows import Rows
from rowserve.graphs.session import GraphSession
from rowserve.graphs.signature import Signature, TensorSpec
from tests.model_recipes import numbers

NAME = "serving_default"
MANY = 1000


def answers(session: GraphSession, x) -> list[bytes]:
    """Each row's packed answer."""
    result = answer_batch(session, session.description.signatures[NAME], Rows({"x": x}, len(x)))
    assert not any(isinstance(each, GraphError) for each in result.packed)
    return [bytes(each) for each in result.packed if not isinstance(each, GraphError)]


def differing_rows(session: GraphSession, seed: int) -> int:
    """How many of 1,000 rows get other bytes in random company, order and batch size than each alone."""
    random = np.random.default_rng(seed)
    x = numbers(MANY, 512, seed=seed)
    alone = [answers(session, x[at : at + 1])[0] for at in range(MANY)]
    order, at, different = random.permutation(MANY), 0, 0
    while at < MANY:
        places = order[at : at + int(random.integers(1, 33))]
        found = zip(answers(session, x[places]), places, strict=True)
        different += sum(packed != alone[place] for packed, place in found)
        at += len(places)
    return different


def test_a_row_s_bytes_never_depend_on_its_company_in_exact_mode(model):
    session = load(model("dense"), LoadSettings(exact=True))
    about = session.description
    assert about.sizes[NAME]
    assert about.execution["mode"] == "exact"
    assert about.execution[f"sizes of {NAME}"] == " ".join(map(str, about.sizes[NAME]))
    assert sum(differing_rows(session, seed) for seed in range(2)) == 0
    session.close()


def test_in_fast_mode_they_do(model):
    """Else the test above would show nothing."""
    session = load(model("dense"), LoadSettings())
    assert session.description.sizes == {}
    assert "mode" not in session.description.execution
    assert differing_rows(session, 0) > MANY / 2
    session.close()


def test_a_random_op_has_no_exact_sizes(model):
    session = load(model("random_op"), LoadSettings(exact=True, trust="rows"))
    assert "last bit" in session.description.signatures[NAME].alone
    assert session.description.sizes == {}
    session.close()


def test_a_fixed_batch_is_its_own_exact_size(model):
    session = load(model("fixed_eight"), LoadSettings(exact=True))
    assert session.description.sizes == {NAME: (8,)}
    session.close()


@given(st.integers(1, 5000))
def test_candidates_are_powers_of_two_and_the_largest(max_rows: int):
    found = candidates(max_rows)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (1, max_rows)
    assert all(size & (size - 1) == 0 for size in found[:-1])


@pytest.mark.parametrize(
    ("groups", "one_shape", "sizes"),
    [
        ([[1, 2, 4, 8, 16, 32]], True, (1, 2, 4, 8, 16, 32)),
        ([[1], [2, 4, 8, 16, 32]], True, (2, 4, 8, 16, 32)),
        ([[1], [2, 4], [8, 16, 32]], True, (8, 16, 32)),
        ([[1], [2], [4], [8], [16], [32]], True, (16,)),
        ([[1, 2, 4, 8, 16, 32]], False, (16,)),  # rows of another shape may tell sizes apart
        ([[1, 2]], True, (1, 2)),
        ([[32], [64]], True, (32,)),
        ([], True, ()),
    ],
)
def test_choice_of_sizes(groups, one_shape: bool, sizes):
    assert choose(groups, one_shape=one_shape) == sizes


class Rounding:
    """A graph whose answers hang on the batch: on its size by `by_size`, on a row's neighbours where `unstable` says
    so.
    """

    loader, frozen, folded = "v1", True, False

    def __init__(self, by_size, unstable=()) -> None:
        self.by_size = by_size
        self.unstable = unstable

    def call(self, signature, arrays):
        x = arrays["x"]
        nudge = self.by_size(len(x)) + (x[0, 0] if len(x) in self.unstable else 0)
        return {"y": x + np.float32(nudge) * np.float32(1e-6)}

    def settle(self, signature, arrays, *, whole=False) -> None:
        """There is nothing to choose."""

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize(
    ("graph", "sizes"),
    [
        (Rounding(lambda size: 0), (1, 2, 4, 8)),
        (Rounding(lambda size: size == 1), (2, 4, 8)),
        (Rounding(lambda size: size < 4), (4, 8)),
        (Rounding(lambda size: 0, unstable=(8,)), (1, 2, 4)),
        (Rounding(lambda size: 0, unstable=(2, 4, 8)), (1,)),
        (Rounding(lambda size: size), (8,)),
    ],
)
def test_sizes_are_grouped_by_the_bytes_of_their_answers(graph: Rounding, sizes):
    signature = Signature(NAME, (TensorSpec("x", "float32", (2,)),), (TensorSpec("y", "float32", (2,)),))
    assert exact_sizes(graph, signature, list(kinds(signature))[:1], 8) == sizes
