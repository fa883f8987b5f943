"""OpenVINO Model Server's own client, which speaks TensorFlow Serving's protocols, against a running server.

It always names a version, 0 where its user names none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.model_recipes import RECIPES
from tests.tools.clients import client
from tests.tools.digits_server import digits_server

ovms = client("ovmsclient")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A client of REST, and one of gRPC."""
    home = tmp_path_factory.mktemp("ovms")
    RECIPES["half_plus_two"](home / "models" / "half_plus_two" / "3")
    RECIPES["vocabulary"](home / "models" / "vocabulary" / "1")
    with digits_server(home / "models", "native", grpc=True) as (url, lane):
        yield {
            "http": ovms.make_http_client(url.removeprefix("http://")),
            "grpc": ovms.make_grpc_client(lane),
        }


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_inference_without_a_version_and_without_a_last_dimension(doors: dict[str, Any], door: str) -> None:
    asked = doors[door]
    for version in ({}, {"model_version": 3}):
        told = asked.predict({"x": np.array([1.0, 2.0, 5.0], np.float32)}, "half_plus_two", **version)
        assert np.asarray(told).tolist() == [2.5, 3.0, 4.5]
    whole = asked.predict({"x": np.array([[1.0], [2.0]], np.float32)}, "half_plus_two")
    assert np.asarray(whole).tolist() == [[2.5], [3.0]]


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_strings_beside_numbers(doors: dict[str, Any], door: str) -> None:
    told = doors[door].predict({"word": ["b", "a"]}, "vocabulary")
    assert {name: len(values) for name, values in told.items()} == {"id": 2, "upper": 2}


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_status_and_metadata_name_the_real_version(doors: dict[str, Any], door: str) -> None:
    status = doors[door].get_model_status("half_plus_two")
    assert {int(version): told["state"] for version, told in status.items()} == {3: "AVAILABLE"}
    about = doors[door].get_model_metadata("half_plus_two")
    assert int(about.get("model_version") or about["model_spec"]["version"]) == 3


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_version_that_is_not_there(doors: dict[str, Any], door: str) -> None:
    with pytest.raises(ovms.ModelNotFoundError):
        doors[door].predict({"x": np.array([1.0], np.float32)}, "half_plus_two", model_version=9)
