from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model_recipes import RECIPES

Model = Callable[[str], Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The folder of a small SavedModel by its recipe's name, made once a session. Copy it before you change it."""
    home = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        folder: Path = home / name
        return folder if folder.exists() else RECIPES[name](folder)

    return find
