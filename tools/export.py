"""Writing a SavedModel of plain operations, complete or not at all; on the caller's thread, or in a child.

The weights are tracked as bare variables: with a Keras model beside them each would be written twice, and the
loader of TensorFlow 1 could then not restore them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Recipe:
    """What a model of one float32 input and one output is made of.

    `answer` is given the weights as variables and a batch [rows, *row_shape], and returns the output's batch.
    """

    input: str
    row_shape: tuple[int, ...]
    output: str
    weights: Weights
    answer: Callable[[Mapping[str, Any], Any], Any]


def is_complete(model: Path) -> bool:
    """Whether the model's folder holds a version 1 and a card."""
    return (model / "1" / "saved_model.pb").is_file() and (model / "rowserve.toml").is_file()


def recipe_digest(source: bytes, packages: Iterable[str]) -> str:
    """A name for what a recipe makes: of its source, of this file's, and of the packages it is made with."""
    digest = hashlib.sha256(source + Path(__file__).read_bytes())
    for package in packages:
        try:
            digest.update(f"\n{package} {version(package)}".encode())
        except PackageNotFoundError:
            digest.update(f"\n{package} absent".encode())
    return digest.hexdigest()[:16]


class BuildFailed(RuntimeError):
    """A model could not be built; the message is one line that says why."""


def build_in_child(builder: str, target: Path) -> None:
    """Run the module `builder` with `target` as its argument in a process of its own.

    So the caller never holds TensorFlow, its threads or its global settings, and does not see what it logs.
    """
    done = subprocess.run(
        [sys.executable, "-m", builder, str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise BuildFailed(f"{target} could not be built: {last}")


@contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Lend a folder beside `target` to fill, and give it that name at the end; on an error nothing is left.

    Who finds that somebody else has finished `target` meanwhile keeps theirs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        building.chmod(0o755)
        yield building
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir() or not any(target.iterdir()):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def export(recipe: Recipe, folder: Path, extras: Mapping[str, str] | None = None) -> None:
    """Write the SavedModel `folder`, with `extras` as text files in its assets.extra."""
    import tensorflow as tf

    variables = {
        name: tf.Variable(array, name=name.lstrip("_"), trainable=False)
        for name, array in recipe.weights.items()
    }

    def serve(batch: Any) -> dict[str, Any]:
        return {recipe.output: recipe.answer(variables, batch)}

    spec = tf.TensorSpec((None, *recipe.row_shape), tf.float32, name=recipe.input)
    module = tf.Module()
    module.variables_by_order = list(variables.values())
    module.serve = tf.function(serve, input_signature=[spec], autograph=False)
    with complete_folder(folder) as building:
        tf.saved_model.save(module, str(building), signatures={"serving_default": module.serve})
        for name, text in (extras or {}).items():
            (building / "assets.extra").mkdir(exist_ok=True)
            (building / "assets.extra" / name).write_text(text, encoding="utf-8")
