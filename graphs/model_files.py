"""What a version's folder holds: the graph file of a SavedModel, or of an ONNX model. Reads names only; any thread."""

from __future__ import annotations

from pathlib import Path

from rowserve.graphs.errors import CannotLoad

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
ONNX_FILE = "model.onnx"
GRAPH_FILES = (*SAVED_MODEL_FILES, ONNX_FILE)


def holds_model(folder: Path) -> bool:
    """Whether a graph file lies in it."""
    return any((folder / name).is_file() for name in GRAPH_FILES)


def is_onnx(folder: Path) -> bool:
    """Whether it is an ONNX model's. A SavedModel beside it goes first."""
    return (folder / ONNX_FILE).is_file() and not any((folder / name).is_file() for name in SAVED_MODEL_FILES)


def check_model_folder(path: Path) -> None:
    """Raise CannotLoad, readable, unless `path` is a folder with a graph file in it."""
    if not path.exists():
        raise CannotLoad(f"{path}: there is no such folder")
    if not path.is_dir():
        raise CannotLoad(f"{path}: not a folder; a model is a folder with saved_model.pb or {ONNX_FILE}")
    if not holds_model(path):
        empty = not any(path.iterdir())
        what = "the folder is empty" if empty else f"not a model: neither saved_model.pb nor {ONNX_FILE} in it"
        raise CannotLoad(f"{path}: {what}")
