from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rowserve.graphs import loading, tensorflow_loading
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.rows import Rows
from rowserve.graphs.session import GraphSession

NAME = "serving_default"
FOUR = LoadSettings(max_rows=4)


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which threads are a matter of choice."""
    monkeypatch.setattr("rowserve.graphs.load_settings.schedulable_cores", lambda: 2)


def prefer(monkeypatch: pytest.MonkeyPatch, *, single: bool) -> list[int]:
    """Let one of the two be the quicker; notes each comparison."""
    asked: list[int] = []

    def quickest(runs, feeds, clock):
        asked.append(len(runs))
        for run in runs:
            run(*feeds)
        return runs[0 if single else 1]

    monkeypatch.setattr(tensorflow_loading, "quickest", quickest)
    monkeypatch.setattr(tensorflow_loading, "LIGHT", float("inf"))
    return asked


def answer(session: GraphSession):
    found = session.run(NAME, Rows({"x": np.ones((3, 4), np.float32)}, 3))["y"]
    session.close()
    return found


@pytest.mark.parametrize("single", [True, False])
def test_a_light_graph_gets_the_threads_that_are_quicker(model, monkeypatch, single: bool):
    asked = prefer(monkeypatch, single=single)
    session = load(model("linear"), FOUR)
    assert session.description.op_threads == (1 if single else 2)
    assert asked == [2]
    assert answer(session).shape == (3, 3)


def test_a_heavy_graph_keeps_all(model, monkeypatch):
    asked = prefer(monkeypatch, single=True)
    monkeypatch.setattr(tensorflow_loading, "LIGHT", 0.0)
    session = load(model("linear"), FOUR)
    assert (asked, session.description.op_threads) == ([], 2)
    session.close()


@pytest.mark.parametrize("settings", [replace(FOUR, exact=True), replace(FOUR, intra_op_threads=2)])
def test_neither_exact_mode_nor_a_setting_leaves_a_choice(model, monkeypatch, settings: LoadSettings):
    asked = prefer(monkeypatch, single=True)
    session = load(model("linear"), settings)
    assert (asked, session.description.op_threads) == ([], 2)
    session.close()


def test_each_session_has_threads_of_its_own(model):
    """Else the first session of the process would decide for all."""
    import os

    load(model("linear"), FOUR).close()
    assert os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] == "1"


@pytest.mark.parametrize("name", ["linear", "only_v2", "only_v1", "fixed_eight"])
def test_what_is_remembered_is_neither_tested_nor_chosen_again(model, monkeypatch, name: str):
    first = load(model(name), FOUR)

    def never(*_, **__):
        raise AssertionError("found out again")

    for module, what in (
        (loading, "examine"),
        (loading, "describe"),
        (tensorflow_loading, "open_graph"),
        (tensorflow_loading, "freeze_or_keep"),
        (tensorflow_loading, "with_fewer_threads"),
    ):
        monkeypatch.setattr(module, what, never)
    again = load(model(name), FOUR, first.description)
    assert again.description == first.description
    assert np.array_equal(answer(first), answer(again))


def test_what_is_remembered_of_another_content_counts_for_nothing(model):
    known = load(model("linear"), FOUR).description
    session = load(model("fixed_eight"), FOUR, known)
    assert session.description.fingerprint != known.fingerprint
    assert session.description.signatures[NAME].batch == 8
    session.close()


@pytest.mark.parametrize("wrong", [{"loader": "v2 function"}, {"loader": "v9"}, {"signatures": {"gone": None}}])
def test_what_is_remembered_and_does_not_hold_is_found_out_anew(model, wrong: dict):
    first = load(model("only_v1"), FOUR)
    session = load(model("only_v1"), FOUR, replace(first.description, **wrong))
    # The threads were measured again.
    assert replace(session.description, op_threads=0) == replace(first.description, op_threads=0)
    first.close()
    session.close()
