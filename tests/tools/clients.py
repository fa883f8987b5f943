"""Other servers' own clients, which the test environment installs."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def client(module: str) -> Any:
    """A module of a client. Where it is missing, tests are skipped; in tox, which installs them all, they fail."""
    try:
        return importlib.import_module(module)
    except ImportError:
        if "TOX_ENV_NAME" in os.environ:
            raise
        pytest.skip(f"needs {module}; tox.ini and setup.py say how it is installed", allow_module_level=True)
