"""The sample photos are found, and a missing package is named with what to install."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from PIL import Image

from rowserve.tools import photos


def test_seven_photos_are_found() -> None:
    found = photos.sample_photos()
    assert len({photo.label for photo in found}) == 7
    for photo in found:
        with Image.open(photo.path) as picture:
            assert min(picture.size) >= 224


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    with pytest.raises(photos.MissingPhotos, match="pip install matplotlib$"):
        photos.sample_photos()
