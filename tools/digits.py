"""A small model for tests and benchmarks: a CNN that reads scikit-learn's 8x8 scans of handwritten digits.

Runs on the caller's thread; training, some ten seconds, in a process of its own. One row is a plain nested
list of 8 x 8 numbers from 0 to 16, as the scans have them; the graph scales them itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path

from rowserve.tools.export import BuildFailed, Recipe, build_in_child, export, is_complete, recipe_digest

NAME = "digits"
TRAINING_ROWS = 1347
EPOCHS = 20
WORST = 0.97
NO_SCANS = "the scans of digits are not here: pip install scikit-learn"
CARD = """\
# How pictures become rows, how answers read, and how many rows a batch takes.
[picture]
colour = "grey"
range = [0, 16]        # what pixels from 0 to 255 become: float models must say this

[labels]
output = "probabilities"

[batch]
max_rows = 256
"""


class MissingDigits(LookupError):
    """scikit-learn, which carries the scans, is not installed; the message says how to get it."""


def digits_model(cache_root: Path | None = None) -> Path:
    """Return the model's folder, named digits, of version 1 and a card; train it if this recipe never was.

    It lies under `cache_root` (the user's cache folder), below a digest of the recipe; the folder above it
    can be given as --models.
    """
    packages = ("tensorflow", "tensorflow-cpu", "keras", "scikit-learn")
    digest = recipe_digest(Path(__file__).read_bytes(), packages)
    model = (cache_root or user_cache_path("rowserve")) / "recipes" / digest / NAME
    if not is_complete(model):
        if find_spec("sklearn") is None:
            raise MissingDigits(NO_SCANS)
        build_in_child(__spec__.name, model)
    return model


def digit_scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All 1797 scans [rows, 8, 8] and the digits they show, in a fixed order: first those trained on."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = np.random.RandomState(0).permutation(len(scans.target))
    return scans.images[order].astype(np.float32), scans.target[order].astype(np.int64)


def build_digits(model: Path) -> float:
    """Train the model and write its folder; return the accuracy on the 450 scans it was not trained on."""
    images, digits = digit_scans()
    weights = _train(images[:TRAINING_ROWS], digits[:TRAINING_ROWS])
    found = np.asarray(_answer(weights, images[TRAINING_ROWS:])).argmax(axis=1)
    accuracy = float((found == digits[TRAINING_ROWS:]).mean())
    if accuracy < WORST:
        raise BuildFailed(f"trained to {accuracy:.3f} only, of at least {WORST}")
    recipe = Recipe("images", (8, 8), "probabilities", weights, _answer)
    export(recipe, model / "1", {"labels.txt": "".join(f"{digit}\n" for digit in range(10))})
    (model / "rowserve.toml").write_text(CARD, encoding="utf-8")
    return accuracy


def _train(images: NDArray[np.float32], digits: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Fit the network from fixed seeds, and return its weights."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(72, activation="relu", name="dense1"),
            layers.Dense(10, activation="softmax", name="dense2"),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(2e-3), loss="sparse_categorical_crossentropy")
    network.fit(images[..., None] / 16.0, digits, batch_size=32, epochs=EPOCHS, verbose=0)
    return {"/".join(v.path.split("/")[-2:]): np.asarray(v.value) for v in network.trainable_variables}


def _answer(weights: Mapping[str, Any], images: Any) -> Any:
    """The network: scans [rows, 8, 8] from 0 to 16 in, probabilities [rows, 10] out."""
    import tensorflow as tf

    def layer(name: str) -> tuple[Any, Any]:
        return weights[f"{name}/kernel"], weights[f"{name}/bias"]

    x = tf.expand_dims(images / 16.0, -1)
    for name in ("conv1", "conv2"):
        kernel, bias = layer(name)
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, 4 * 4 * 32])
    kernel, bias = layer("dense1")
    x = tf.nn.relu(tf.matmul(x, kernel) + bias)
    kernel, bias = layer("dense2")
    return tf.nn.softmax(tf.matmul(x, kernel) + bias)


def write_examples(folder: Path) -> None:
    """Write what the README sends: 7.png, three pictures in scans/, three JSON rows in rows.jsonl."""
    scans, digits = digit_scans()
    of_each = {digit: scans[np.flatnonzero(digits == digit)[0]] for digit in range(10)}
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    for digit, name in ((7, "7.png"), (0, "scans/0.png"), (1, "scans/1.png"), (2, "scans/2.png")):
        Image.fromarray((of_each[digit] * 255 / 16).round().astype(np.uint8)).save(folder / name)
    rows = [json.dumps(of_each[digit].astype(int).tolist()) for digit in (4, 5, 6)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("examples", type=click.Path(file_okay=False, path_type=Path), required=False)
def main(model: Path, examples: Path | None) -> None:
    """Train the model and write its folder MODEL; into EXAMPLES go pictures and rows to send it."""
    if find_spec("sklearn") is None:
        raise click.ClickException(NO_SCANS)
    if examples is None:
        click.echo(build_digits(model))
        return
    click.echo("training, for some 15 s ...", err=True)
    build_in_child(__spec__.name, model)
    write_examples(examples)
    click.echo(f"{model} is the model; 7.png, rows.jsonl and scans/ in {examples} are to be sent to it")


if __name__ == "__main__":
    main()
