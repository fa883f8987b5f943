"""Labels that fit one output, several, or none: what is served, and what the log says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.server.card import Card, LabelsCard
from rowserve.server.discovery import ModelSource
from rowserve.server.labels import labels_of

OUTPUTS = (
    TensorSpec("logits", "float32", (3,)),
    TensorSpec("names", "string", (3,)),
    TensorSpec("probabilities", "float32", (3,)),
    TensorSpec("pair", "float32", (2,)),
)
ABOUT = ModelDescription(
    "f",
    {"serving_default": Signature("serving_default", (TensorSpec("x", "float32", ()),), OUTPUTS)},
    "v1",
    frozen=True,
)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of version 1 of model m."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    return folder


def found(version: Path, caplog: Any, text: str | None, **card: str) -> tuple[str | None, str]:
    """The output that is labelled, and the log."""
    if text is not None:
        (version.parent / "labels.txt").write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        labels = labels_of(ModelSource("m", 1, version, Card(labels=LabelsCard(**card))), ABOUT)
    return (None if labels is None else labels.output), "\n".join(r.getMessage() for r in caplog.records)


def test_the_only_output_that_fits(version: Path, caplog: Any) -> None:
    assert found(version, caplog, "a\nb\n") == ("pair", "")


def test_the_output_that_the_card_names(version: Path, caplog: Any) -> None:
    assert found(version, caplog, "a\nb\nc\n", output="probabilities") == ("probabilities", "")


@pytest.mark.parametrize(
    ("text", "card", "words"),
    [
        ("a\nb\nc\n", {}, ["labels.output", "logits, probabilities"]),
        ("a\nb\nc\n", {"output": "pair"}, ["labels.output", "'pair'", "(2,)", "logits, probabilities"]),
        ("a\nb\nc\n", {"output": "scores"}, ["labels.output", "'scores'", "logits, probabilities"]),
        ("a\n", {}, ["labels.output", "logits (3,)", "pair (2,)"]),
        ("a\n", {"output": "names"}, ["labels.output", "'names'", "none"]),
        (None, {"file": "classes.txt"}, ["labels.file", "classes.txt"]),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_field(
    version: Path, caplog: Any, text: str | None, card: dict[str, str], words: list[str]
) -> None:
    labelled, log = found(version, caplog, text, **card)
    assert labelled is None
    assert "serves without labels" in log
    assert len(log.splitlines()) == 1
    assert not [word for word in words if word not in log]
