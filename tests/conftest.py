"""What every test may ask for: the two real models, built once, and hypothesis without a clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from platformdirs import user_cache_path

from rowserve.tools import efficientnet, torch_weights
from rowserve.tools.digits import digits_model
from rowserve.tools.efficientnet import efficientnet_model
from rowserve.tools.export import recipe_digest

# No deadline: the machine is shared, and a slow moment is not a failure.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

RECIPES = user_cache_path("rowserve") / "recipes"


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the digits model: version 1 and a card; its parent can be given as --models."""
    return digits_model()


@pytest.fixture(scope="session")
def efficientnet_lite0() -> Path:
    """The folder of EfficientNet-Lite0: version 1 and a card; its parent can be given as --models."""
    source = Path(efficientnet.__file__).read_bytes() + Path(torch_weights.__file__).read_bytes()
    return efficientnet_model(RECIPES / recipe_digest(source, ["tensorflow", "tensorflow-cpu"]))
