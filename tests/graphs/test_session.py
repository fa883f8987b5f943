from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import GraphFailed
from rowserve.graphs.rows import Rows
from rowserve.graphs.session import GraphSession, sizes_for
from rowserve.graphs.signature import Signature, TensorSpec

X = TensorSpec("x", "float32", (2,))
WORD = TensorSpec("word", "string", ())
SCALE = TensorSpec("scale", "float32", (), batched=False)
Y = TensorSpec("y", "float32", (2,))
SAID = TensorSpec("said", "string", ())


class Graph:
    """y = x * scale, said = word; or whatever `answer` says. Notes the sizes it ran at."""

    loader, frozen, folded = "v1", True, False

    def __init__(self, answer: Any = None) -> None:
        self.sizes: list[int] = []
        self.answer = answer
        self.closed = False

    def call(self, signature, arrays):
        self.sizes.append(len(arrays["x"]))
        if self.answer is not None:
            return self.answer(arrays)
        return {"y": arrays["x"] * arrays["scale"], "said": arrays["word"]}

    def settle(self, signature, arrays, *, whole=False) -> None:
        """There is nothing to choose."""

    def close(self) -> None:
        self.closed = True


def session(graph: Graph, sizes=(), outputs=(SAID, Y), **signature) -> GraphSession:
    found = Signature("s", (SCALE, WORD, X), outputs, **signature)
    return GraphSession(graph, ModelDescription("f", {"s": found}, "v1", True, {"s": sizes} if sizes else {}))


def rows(count: int) -> Rows:
    words = np.empty(count, object)
    words[:] = [b"w%d" % index for index in range(count)]
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return Rows({"x": x, "word": words}, count, {"scale": np.array(3, np.float32)})


def check(found, count: int) -> None:
    assert found["y"].tolist() == (rows(count).arrays["x"] * 3).tolist()
    assert found["said"].tolist() == [b"w%d" % index for index in range(count)]


def test_rows_of_any_number_run_as_they_are():
    graph = Graph()
    check(session(graph).run("s", rows(5)), 5)
    assert graph.sizes == [5]


def test_no_rows_are_answered_without_the_graph():
    graph = Graph()
    found = session(graph, outputs=(Y, TensorSpec("said", "string", None))).run("s", rows(0))
    assert (found["y"].shape, found["y"].dtype, found["said"].shape) == ((0, 2), np.float32, (0,))
    assert graph.sizes == []


@pytest.mark.parametrize(("batch", "count", "ran"), [(1, 3, [1, 1, 1]), (8, 3, [8]), (8, 8, [8]), (8, 17, [8, 8, 8])])
def test_a_fixed_leading_dimension_is_kept_to(batch: int, count: int, ran: list[int]):
    graph = Graph()
    check(session(graph, batch=batch).run("s", rows(count)), count)
    assert graph.sizes == ran


@given(
    st.integers(1, 40),
    st.sets(st.integers(1, 16), min_size=1).map(sorted).map(tuple),
)
def test_exact_mode_runs_nothing_but_its_sizes(count: int, sizes: tuple[int, ...]):
    graph = Graph()
    check(session(graph, sizes).run("s", rows(count)), count)
    assert set(graph.sizes) <= set(sizes)
    assert graph.sizes == sizes_for(count, sizes)
    assert sum(graph.sizes) >= count
    assert sum(graph.sizes[:-1]) < count  # nothing runs for padding alone


def test_padding_is_made_of_rows_that_are_there():
    seen = []

    def answer(arrays):
        seen.append(arrays["x"].tolist())
        return {"y": arrays["x"]}

    session(Graph(answer), (4,), (Y,)).run("s", rows(2))
    assert seen == [[[0, 1], [2, 3], [0, 1], [0, 1]]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[:-1],  # a row too few
        lambda x: x.mean(),  # no rows at all
        lambda x: np.concatenate([x, x]),
        lambda x: x[:, :1],  # rows of another shape than declared: they would be packed askew
        lambda x: x.reshape(-1),
    ],
)
def test_an_answer_of_another_shape_than_declared_is_an_error(wrong):
    with pytest.raises(GraphFailed, match="output y of signature s came back as"):
        session(Graph(lambda arrays: {"y": wrong(arrays["x"])}), outputs=(Y,)).run("s", rows(3))


def test_answers_that_do_not_fit_together_are_an_error():
    free = TensorSpec("y", "float32", (None,))
    graph = Graph()
    graph.answer = lambda arrays: {"y": np.zeros((2, len(graph.sizes)), np.float32)}
    with pytest.raises(GraphFailed, match="changed between two runs"):
        session(graph, (2,), (free,)).run("s", rows(4))


def test_an_alone_signature_gets_and_gives_whole_tensors():
    graph = Graph(lambda arrays: {"y": arrays["x"].mean(axis=0)})
    whole = TensorSpec("y", "float32", (2,), batched=False)
    assert session(graph, outputs=(whole,), alone="a mean").run("s", rows(4))["y"].tolist() == [3, 4]
    wrong = TensorSpec("y", "float32", (3,), batched=False)
    with pytest.raises(GraphFailed, match="came back as"):
        session(graph, outputs=(wrong,), alone="a mean").run("s", rows(4))


def test_closing_frees_the_graph():
    graph = Graph()
    session(graph).close()
    assert graph.closed
