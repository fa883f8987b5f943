from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs import openvino_graph
from rowserve.graphs.errors import RowBroken
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.openvino_graph import check_range, pieces, properties
from rowserve.graphs.rows import Rows
from rowserve.graphs.tolerance import Likeness, likeness

NAME = "serving_default"
SETTINGS = LoadSettings(engine="openvino", precision="f32", intra_op_threads=1)


@given(st.integers(0, 200), st.integers(1, 40))
def test_pieces_hold_every_row_once(count: int, size: int):
    found = list(pieces(count, size))
    assert [row for first, last in found for row in range(first, last)] == list(range(count))
    assert all(last - first <= size for first, last in found)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 30])
def test_a_graph_with_work_to_do_runs_in_pieces_and_answers_alike(model, monkeypatch, count: int):
    whole = load(model("dense"), SETTINGS)
    monkeypatch.setattr(openvino_graph, "LIGHT", 0.0)
    cut = load(model("dense"), SETTINGS)
    rows = Rows({"x": np.random.default_rng(count).normal(size=(count, 512)).astype(np.float32)}, count)
    one, other = whole.run(NAME, rows)["y"], cut.run(NAME, rows)["y"]
    assert other.shape == one.shape
    assert likeness(one, other) > Likeness.DIFFERENT
    whole.close()
    cut.close()


def test_pieces_are_small_and_warm_and_no_more_than_asked_for(model, monkeypatch):
    monkeypatch.setattr(openvino_graph, "LIGHT", 0.0)
    ran: list[int] = []
    plain = openvino_graph._Run.__call__

    def watched(run, arrays):
        ran.append(len(arrays["x"]))
        return plain(run, arrays)

    monkeypatch.setattr(openvino_graph._Run, "__call__", watched)
    session = load(model("dense"), SETTINGS)
    ran.clear()
    session.run(NAME, Rows({"x": np.zeros((11, 512), np.float32)}, 11))
    assert ran == [4, 4, 3]
    session.close()
    session = load(model("dense"), LoadSettings(engine="openvino", intra_op_threads=1, max_rows=2))
    ran.clear()
    session.run(NAME, Rows({"x": np.zeros((2, 512), np.float32)}, 2))
    assert ran == [2]
    session.close()


@pytest.mark.parametrize("name", ["free_rows", "fixed_eight"])
def test_shapes_that_are_free_or_fixed_are_not_made_anew(model, monkeypatch, name: str):
    monkeypatch.setattr(openvino_graph, "LIGHT", 0.0)
    session = load(model(name), SETTINGS)
    rows = Rows({"x": np.ones((11, 4), np.float32)}, 11)
    assert len(next(iter(session.run(NAME, rows).values()))) == 11
    session.close()


def test_in_exact_mode_no_measurement_chooses_how_a_row_is_computed(model, monkeypatch):
    monkeypatch.setattr(openvino_graph, "LIGHT", 0.0)
    monkeypatch.setattr(openvino_graph._Call, "_sized", lambda *_: pytest.fail("made for a size"))
    load(model("dense"), LoadSettings(engine="openvino", exact=True, max_rows=4)).close()


def test_rows_that_must_run_together_are_not_cut_into_pieces(model, monkeypatch):
    monkeypatch.setattr(openvino_graph, "LIGHT", 0.0)
    session = load(model("counted"), SETTINGS)
    assert session.description.sizes == {NAME: (16,)}
    x = np.ones((20, 4), np.float32)
    for count in (1, 20):
        assert session.run(NAME, Rows({"x": x[:count]}, count))["y"].tolist() == [[17.0] * 4] * count
    session.close()


def test_float32_unless_the_card_says_otherwise():
    for precision, said in (("", "f32"), ("f32", "f32"), ("bf16", "bf16")):
        settings = LoadSettings(engine="openvino", precision=precision)
        assert properties(settings)["INFERENCE_PRECISION_HINT"] == said


@pytest.mark.parametrize(
    ("value", "fits"), [(2**31 - 1, True), (2**31, False), (-(2**31), True), (-(2**31) - 1, False)]
)
def test_integers_of_64_bits_must_fit_into_32(value: int, fits: bool):
    array = np.array([0, value], np.int64)
    if fits:
        check_range("ids", array)
    else:
        with pytest.raises(RowBroken, match="ids"):
            check_range("ids", array)
    check_range("ids", array[:0])


def test_a_model_runs_on_another_thread_than_it_was_loaded_on(model):
    session = load(model("linear"), SETTINGS)
    found: list[int] = []
    rows = Rows({"x": np.ones((2, 4), np.float32)}, 2)
    thread = threading.Thread(target=lambda: found.append(len(session.run(NAME, rows)["y"])))
    thread.start()
    thread.join()
    assert found == [2]
    session.close()
