"""The statistics that the Open Inference Protocol gives: what the pipeline has really done."""

from __future__ import annotations

from typing import Any

import pytest

from rowserve.handlers.items import Outcome
from rowserve.handlers.open_inference_models import Serving
from rowserve.handlers.open_inference_statistics import ModelFigures, statistics_document
from rowserve.handlers.problem import Problem
from rowserve.server.metrics import Metrics
from rowserve.server.models import Models
from rowserve.server.open_inference_catalog import figures, find, serving
from tests.doubles import BROKEN, number_rows
from tests.server.conftest import PipelineBench


def catalog(bench: PipelineBench) -> Models:
    models = Models()
    state = models.expect("arithmetic", 1)
    state.state, state.model = "ready", bench.model
    models.expect("slow", 1)
    return models


def only(models: Models, bench: PipelineBench, *which: str) -> ModelFigures:
    (told,) = figures(models, bench.metrics, *which)
    return told


def test_rows_are_counted_by_what_became_of_them_and_timed(bench: PipelineBench) -> None:
    asked = bench.ask(number_rows(1, 2, 2))
    bench.clock.advance(0.5)
    bench.run()
    assert asked.outcomes == ["computed", "computed", "collapsed"]
    bench.answer(number_rows(1, 2, BROKEN))
    told = only(catalog(bench), bench)
    assert (told.success.rows, told.fail.rows, told.hits.rows, told.misses.rows) == (5, 1, 2, 3)
    assert told.success.seconds == 1.5


def test_the_seconds_of_hits_are_those_of_looking_up() -> None:
    metrics = Metrics()
    counts = metrics.rows("m", 1, "one")
    counts.hits(3, 0.5)
    counts.ask(2)
    counts.settle(Outcome.HIT)
    counts.settle(Outcome.COMPUTED)
    counts.took([Outcome.HIT, Outcome.COMPUTED], 4.0, 0.25)
    metrics.rows("m", 1, "two").hits(1, 1.0)
    models = Models()
    models.expect("m", 1).state = "ready"
    (told,) = figures(models, metrics)
    assert (told.hits.rows, told.hits.seconds) == (5, 2.75)
    assert (told.misses.rows, told.misses.seconds) == (1, 0.25)
    assert (told.success.rows, told.success.seconds) == (6, 10.5)


def test_batches_are_counted_by_size() -> None:
    metrics, models = Metrics(), Models()
    counts = metrics.batches("m", 1)
    for rows, waited, ran in ((2, 0.5, 1.0), (2, 0.25, 2.0), (8, 0.0, 0.5)):
        counts.add(rows, waited, ran, 1000.25, "idle")
    models.expect("m", 1).state = "ready"
    (document,) = statistics_document(figures(models, metrics))["model_stats"]
    assert (document["name"], document["version"], document["last_inference"]) == ("m", "1", 1_000_250)
    assert (document["inference_count"], document["execution_count"]) == (12, 3)
    assert document["inference_stats"]["queue"] == {"count": 12, "ns": 750_000_000}
    assert document["inference_stats"]["compute_infer"] == {"count": 12, "ns": 10_000_000_000}
    sizes = [(size["batch_size"], size["compute_infer"]) for size in document["batch_stats"]]
    assert sizes == [(2, {"count": 2, "ns": 3_000_000_000}), (8, {"count": 1, "ns": 500_000_000})]


def test_statistics_of_one_model_and_of_what_is_not_there(bench: PipelineBench) -> None:
    models = catalog(bench)
    assert only(models, bench, "arithmetic").name == "arithmetic"
    assert only(models, bench, "arithmetic", "1").version == 1
    assert figures(models, bench.metrics, "slow") == []
    wrong: Any
    for wrong, status in ((("other",), 404), (("arithmetic", "2"), 404), (("slow", "1"), 503)):
        with pytest.raises(Problem) as caught:
            figures(models, bench.metrics, *wrong)
        assert caught.value.status == status


def test_how_a_model_is_served(bench: PipelineBench) -> None:
    assert serving(find(catalog(bench), "arithmetic")) == Serving(4096, 32, 0.0, cached=True)
