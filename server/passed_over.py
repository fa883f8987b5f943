"""What in a folder of models looks like a model and is none that is served: why, and what to do. Any thread."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from rowserve.graphs.model_files import ONNX_FILE, holds_model
from rowserve.server.discovery import versions

KERAS = "it is in Keras' own format; keras.saving.load_model(FILE).export({folder!r}) writes what is served"
PYTORCH = "it is PyTorch's; torch.onnx.export writes it as {folder}/" + ONNX_FILE
FILES = {
    ".keras": KERAS,
    ".h5": KERAS,
    ".hdf5": KERAS,
    ".tflite": "it is TensorFlow Lite's; put the SavedModel that it was made of into {folder}",
    ".pb": "it is a graph without signatures; tf.saved_model.save writes what is served, {folder}/saved_model.pb",
    ".pt": PYTORCH,
    ".pth": PYTORCH,
    ".onnx": "ONNX files are found by name; move it to {folder}/" + ONNX_FILE,
}
TRITON = ".savedmodel"
ALMOST_A_VERSION = re.compile(r"v(ersion)?[-_.]?\d.*|\d.*", re.IGNORECASE)


def passed_over(models: Path) -> Iterator[str]:
    """A line for each, in a folder of models DIR/NAME/VERSION/."""
    entries = listed(models)
    if holds_model(models):
        yield f"{models} is one model and no folder of models; serve it with --model NAME={models}"
        return
    if any(holds_model(entry) for entry in found_in(models).values()):
        it = f"--model {models.resolve().name}={models}"
        yield f"{models} holds versions of one model, and they are taken for models; serve it with {it}"
    yield from files(entries, lambda file: models / file.stem / "1")
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            lines = list(passed_over_in(entry))
            yield from lines
            if not lines and not holds_model(entry) and not found_in(entry):
                yield f"{entry} is passed over: it holds no model; a model lies in {entry / '1'}"


def passed_over_in(model: Path) -> Iterator[str]:
    """The same in one model's folder, or of one file."""
    if model.is_file():
        yield from files([model], lambda file: file.with_suffix("") / "1")
    if holds_model(model):
        return
    counted = found_in(model)
    entries = listed(model)
    yield from files(entries, lambda _: model / "1")
    for entry in filter(Path.is_dir, entries):
        if entry in counted.values():
            yield from in_version(entry)
        elif entry.name.isdecimal() and int(entry.name) in counted:
            yield f"{entry} is passed over: version {int(entry.name)} is in {counted[int(entry.name)]} already"
        elif holds_model(entry) or ALMOST_A_VERSION.fullmatch(entry.name):
            number = re.search("[1-9][0-9]*", entry.name)
            as_number = model / (number[0] if number else "1")
            yield f"{entry} is passed over: versions are positive whole numbers; rename it to {as_number}"


def in_version(version: Path) -> Iterator[str]:
    """The same in a version's folder."""
    if holds_model(version):
        return
    entries = listed(version)
    yield from files(entries, lambda _: version)
    for entry in entries:
        if entry.suffix == TRITON and entry.is_dir():
            yield f"{entry} is passed over: it is Triton's layout; move what is in it to {version}"


def files(entries: list[Path], folder: Callable[[Path], Path]) -> Iterator[str]:
    """A line for each kind of file that is not served; `folder` is where a model made of it belongs."""
    kinds = Counter(entry.suffix.lower() for entry in entries)
    told = set()
    for entry in entries:
        kind = entry.suffix.lower()
        if kind in FILES and kind not in told and entry.is_file():
            told.add(kind)
            more = f" (and {kinds[kind] - 1} more {kind})" if kinds[kind] > 1 else ""
            yield f"{entry}{more} is passed over: {FILES[kind].format(folder=str(folder(entry)))}"


def listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing, where that cannot be seen: who looks for models says so."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def found_in(model: Path) -> dict[int, Path]:
    """The versions in a model's folder; none, where it cannot be seen."""
    try:
        return versions(model)
    except OSError:
        return {}
