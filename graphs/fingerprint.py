"""The digest of a model's content: what it is, whatever it is called and wherever it lies.

Reads files; runs on any thread, blocking (about a second a gigabyte). No TensorFlow.

What counts is what either loader reads to make answers: the graph (`saved_model.pb` or `.pbtxt`), everything
under `variables/` and everything under `assets/`. What does not count: `assets.extra/` (labels and samples
for people), `fingerprint.pb` and `keras_metadata.pb` (written anew at each save, read by no loader here),
`debug/`, and whatever else lies in the folder. Of an ONNX model, `model.onnx` counts and the files that it keeps
weights in. Saving a model a second time may order its protobuf otherwise; that is another content and costs no more
than a cold cache.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from rowserve.graphs.errors import CannotLoad
from rowserve.graphs.model_files import ONNX_FILE, SAVED_MODEL_FILES, check_model_folder, is_onnx
from rowserve.graphs.onnx_model import read_onnx

CONTEXT = "rowserve model fingerprint, format 1"
FOLDERS = ("variables", "assets")
U64 = struct.Struct("<Q")


def fingerprint(path: Path) -> str:
    """64 hex digits over the sorted relative paths and the bytes of the defining files. Raises CannotLoad."""
    digest = blake3(derive_key_context=CONTEXT)
    try:
        for name, file in sorted(defining_files(path)):
            content = blake3(max_threads=blake3.AUTO).update_mmap(file)
            framed = name.encode("utf-8", "surrogateescape")
            digest.update(U64.pack(len(framed)) + framed + content.digest())
    except OSError as error:
        raise CannotLoad(f"{path}: cannot read the model: {error.strerror or error}") from None
    return digest.hexdigest()


def defining_files(path: Path) -> Iterator[tuple[str, Path]]:
    """(relative path with slashes, file) of each file that defines the answers. Raises CannotLoad where there
    is no graph.
    """
    check_model_folder(path)
    if is_onnx(path):
        for name in (ONNX_FILE, *read_onnx(path).beside):
            yield name, path / name
        return
    for name in SAVED_MODEL_FILES:
        if (path / name).is_file():
            yield name, path / name
            break
    for folder in FOLDERS:
        for parent, _, names in os.walk(path / folder, followlinks=True, onerror=_raise):
            for name in names:
                file = Path(parent, name)
                yield file.relative_to(path).as_posix(), file


def _raise(error: OSError) -> None:
    # A folder that is not there is fine; one that cannot be read is not.
    if not isinstance(error, FileNotFoundError):
        raise error
