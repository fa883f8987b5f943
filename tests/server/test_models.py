from __future__ import annotations

import pytest

from rowserve.handlers.problem import Problem
from rowserve.server.models import Models
from tests.server.conftest import PipelineBench


@pytest.fixture
def models() -> Models:
    """cats 1 (ready), cats 2 (loading), dogs 1 (broken)."""
    models = Models()
    ready = models.expect("cats", 1)
    ready.model, ready.state = PipelineBench().model, "ready"
    models.expect("cats", 2)
    broken = models.expect("dogs", 1)
    broken.state, broken.fault = "broken", "a nail"
    return models


def test_the_highest_version_that_is_ready_answers_for_the_name(models):
    first = models.find("cats")
    assert models.find("cats", 1) is first
    second = next(state for state in models.states() if state.version == 2)
    second.model, second.state = PipelineBench().model, "ready"
    assert models.find("cats") is second.model
    assert models.find("cats", 1) is first


@pytest.mark.parametrize(
    ("name", "version", "status", "says"),
    [
        ("birds", None, 404, "cats, dogs"),
        ("../cats", None, 404, "no model"),
        ("cats", 3, 404, "it has: 2, 1"),
        ("cats", 2, 503, "still loading"),
        ("dogs", None, 503, "/readyz"),
    ],
)
def test_what_does_not_answer_says_why(models, name, version, status, says):
    with pytest.raises(Problem, match=says) as fault:
        models.find(name, version)
    assert fault.value.status == status


def test_version_0_is_the_one_that_answers_by_default(models):
    assert models.find("cats", 0) is models.find("cats")
    assert [state.version for state in models.asked("cats", 0)] == [1]
    assert [state.version for state in models.asked("cats")] == [2, 1]
    assert [state.version for state in models.asked("cats", 2)] == [2]
    assert [state.version for state in models.asked("dogs", 0)] == [1]
    assert models.asked("birds", 0) == []
    with pytest.raises(Problem, match="no model"):
        models.find("birds", 0)


def test_ready_means_that_nothing_loads_any_more_and_something_answers(models):
    assert not models.ready
    next(state for state in models.states() if state.state == "loading").state = "broken"
    assert models.ready
    for state in models.states():
        state.state = "broken"
    assert not models.ready


def test_states_come_by_name_and_the_highest_version_first(models):
    assert [(state.name, state.version) for state in models.states()] == [("cats", 2), ("cats", 1), ("dogs", 1)]
