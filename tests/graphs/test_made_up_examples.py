from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.made_up_examples import Feature, encode, features_of
from rowserve.graphs.rows import Rows
from rowserve.graphs.saved_model import parse

NAME = "serving_default"
LISTS = (
    st.lists(st.binary(max_size=200), min_size=1, max_size=3)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3)
    | st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=3)
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), LISTS, max_size=3))
def test_tensorflow_reads_what_is_encoded(values: dict):
    message = tensorflow().train.Example.FromString(encode({key.encode(): found for key, found in values.items()}))
    read = {
        key: list(getattr(found, found.WhichOneof("kind")).value) for key, found in message.features.feature.items()
    }
    assert read == values


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("examples", (Feature(b"n", "int64", 1), Feature(b"words", "string", None), Feature(b"x", "float32", 3))),
        ("old_examples", (Feature(b"x", "float32", 1),)),
        ("linear", ()),
    ],
)
def test_features_are_read_from_the_graph(model, name: str, features: tuple[Feature, ...]):
    assert features_of(parse(model(name)).meta_graphs[0]) == features


@pytest.mark.parametrize("name", ["examples", "old_examples"])
def test_a_graph_that_parses_examples_is_tested_and_shares_batches(model, name: str):
    session = load(model(name), LoadSettings())
    assert session.description.signatures[NAME].alone == ""
    text = np.array([encode({b"x": [1.0, 2.0, 3.0][: 3 if name == "examples" else 1], b"n": [5]})], object)
    assert session.run(NAME, Rows({"examples": text}, 1))
    session.close()
