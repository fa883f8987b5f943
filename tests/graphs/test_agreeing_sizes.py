from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rowserve.graphs.agreeing_sizes import MOST, agreeing_sizes
from rowserve.graphs.errors import RowBroken
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.made_up_rows import kinds
from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature, TensorSpec
from tests.model_recipes import numbers

NAME = "serving_default"
ENGINES = pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
PLAIN = Signature(NAME, (TensorSpec("x", "float32", (2,)),), (TensorSpec("y", "float32", (2,)),))


def settings(engine: str, **more: Any) -> LoadSettings:
    return LoadSettings(**{"engine": engine, "precision": "f32" if engine == "openvino" else "", **more})


def answers(session, x, count: int):
    """Answers of all rows, asked for `count` at a time."""
    parts = [x[at : at + count] for at in range(0, len(x), count)]
    return np.concatenate([session.run(NAME, Rows({"x": part}, len(part)))["y"] for part in parts])


@ENGINES
@pytest.mark.parametrize(
    ("recipe", "sizes", "said", "more"),
    [
        ("counted", (16,), "only in batches of 16, filled up", 16),
        ("few_counted", (4, 8, 16, 32), "only in batches of 4, 8, 16 or 32, filled up", 0),
    ],
)
def test_rows_run_at_sizes_that_agree(model, engine: str, recipe: str, sizes, said: str, more: int):
    session = load(model(recipe), settings(engine))
    about = session.description
    assert about.signatures[NAME].alone == ""
    assert about.sizes == {NAME: sizes}
    (note,) = [note for note in about.notes if said in note]
    assert "output y of a row changes with the number of rows beside it" in note
    x = numbers(40, 4)
    for count in (1, 2, 3, 5, 32, 40):
        np.testing.assert_allclose(answers(session, x, count), x + more, rtol=1e-6, atol=1e-6)
    session.close()


@ENGINES
@pytest.mark.parametrize(
    ("recipe", "why"),
    [("centred", "changes with the rows beside it"), ("numbered", "changes with its place in the batch")],
)
def test_where_company_or_place_matters_requests_stay_apart(model, engine: str, recipe: str, why: str):
    session = load(model(recipe), settings(engine))
    assert why in session.description.signatures[NAME].alone
    assert session.description.sizes == {}
    session.close()


def test_the_sizes_are_remembered(model, monkeypatch):
    first = load(model("counted"), LoadSettings())
    monkeypatch.setattr("rowserve.graphs.loading.examine", lambda *_: pytest.fail("tested again"))
    again = load(model("counted"), LoadSettings(), first.description)
    assert again.description == first.description
    x = numbers(3, 4)
    assert np.array_equal(answers(again, x, 3), answers(first, x, 1))
    first.close()
    again.close()


def test_one_row_at_most_is_answered_as_the_bare_model_answers_it(model):
    session = load(model("counted"), LoadSettings(max_rows=1))
    assert session.description.sizes == {NAME: (1,)}
    x = numbers(3, 4)
    assert np.array_equal(answers(session, x, 3), x + 1)
    session.close()


def test_in_exact_mode_it_runs_at_exact_sizes_which_no_other_signature_s_key_names(model):
    session = load(model("counted_beside_linear"), LoadSettings(exact=True, max_rows=8))
    about = session.description
    assert about.signatures["counted"].alone == ""
    assert about.sizes["counted"] == (8,)
    assert "sizes of counted" not in about.execution
    assert about.execution_of(NAME) == about.execution
    session.close()


class Graph:
    """A graph whose answers are a function of an array."""

    loader, frozen, folded = "v1", True, False

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.ran: set[int] = set()

    def call(self, signature, arrays):
        self.ran.add(len(arrays["x"]))
        return {"y": self.answer(arrays["x"])}

    def settle(self, signature, arrays, *, whole=False) -> None:
        """There is nothing to choose."""

    def close(self) -> None:
        """Nothing to free."""


def found(answer, max_rows: int = 32, signature: Signature = PLAIN) -> tuple[int, ...]:
    return agreeing_sizes(Graph(answer), signature, list(kinds(signature))[:2], max_rows)


def by_size(nudge: Callable[[int], float]):
    return lambda x: x + np.float32(nudge(len(x)))


@pytest.mark.parametrize(
    ("nudge", "max_rows", "sizes"),
    [
        (lambda size: size, 32, (16,)),
        (lambda size: size, 8, (8,)),
        (lambda size: size, 12, (12,)),
        (lambda size: size < 4, 32, (4, 8, 16, 32)),
        (lambda size: size > 16, 32, (1, 2, 4, 8, 16)),  # a crowd in pieces, rather than all at one size
        (lambda size: size > 8, 32, (16, 32)),
        (lambda size: size % 2, 32, (2, 4, 8, 16, 32)),
        (lambda size: size * 1e-7, 32, (1, 2, 4, 8, 16, 32)),  # last bits are no difference
    ],
)
def test_sizes_are_grouped_by_answers_within_tolerance(nudge, max_rows: int, sizes):
    assert found(by_size(nudge), max_rows) == sizes


def test_rows_of_free_shape_run_at_one_size():
    free = replace(PLAIN, inputs=(TensorSpec("x", "float32", (None,)),), outputs=(TensorSpec("y", "float32", (None,)),))
    assert found(by_size(lambda size: size < 4), signature=free) == (16,)


def test_sizes_at_which_company_or_place_matters_are_left_out():
    assert found(lambda x: x + (x.mean() if len(x) >= 8 else np.float32(len(x) == 1))) == (2, 4)
    places = np.arange(64, dtype=np.float32)[:, None]
    assert found(lambda x: x + (places[: len(x)] if len(x) < 8 else 0)) == (1, 8, 16, 32)


def test_so_are_sizes_that_do_not_run_or_give_another_number_of_rows():
    def answer(x):
        if len(x) == 1:
            raise RowBroken("one is too few")
        return x[:8]

    assert found(answer) == (2, 4, 8)


def test_where_no_size_will_do_there_is_none():
    random = np.random.default_rng(1)
    assert found(lambda x: x + random.normal(size=x.shape).astype(np.float32)) == ()


def test_sizes_that_would_take_long_to_try_are_not_tried():
    graph = Graph(by_size(lambda size: size < 4))
    assert agreeing_sizes(graph, PLAIN, list(kinds(PLAIN))[:1], 4096) == (4, 8, 16, 32, 64)
    assert max(graph.ran) == MOST
