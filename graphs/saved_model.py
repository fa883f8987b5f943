"""A SavedModel's protobuf as signatures and metadata; nothing of the graph is loaded or run.

Any thread; without TensorFlow, but for a graph in text form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.errors import CannotLoad, one_line
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.model_files import check_model_folder
from rowserve.graphs.row_signature import check_names, row_signature
from rowserve.graphs.saved_model_messages import SavedModelMessage, dtype_name
from rowserve.graphs.signature import Shape, Signature, TensorSpec

SERVE = "serve"


@dataclass(frozen=True)
class SavedModel:
    """One meta graph of a SavedModel folder: what would be loaded.

    `inputs` and `outputs` give, by signature, the tensor in the graph behind each name.
    """

    path: Path
    meta_graph: Any
    tags: tuple[str, ...]
    signatures: dict[str, Signature]
    inputs: dict[str, dict[str, str]]
    outputs: dict[str, dict[str, str]]
    notes: tuple[str, ...]


def read_saved_model(path: Path, settings: LoadSettings) -> SavedModel:
    """The meta graph to serve and its signatures. Raises CannotLoad."""
    check_model_folder(path)
    meta_graph = choose_meta_graph(path, parse(path).meta_graphs)
    notes: list[str] = []
    signatures: dict[str, Signature] = {}
    for name, definition in sorted(meta_graph.signature_def.items()):
        if name.startswith("__saved_model_"):
            continue  # the init and train ops, which stand among the signatures
        why = unservable(definition)
        if why:
            notes.append(f"signature {name} is left out: {why}")
        else:
            signatures[name] = to_signature(name, definition, settings)
    if not signatures:
        raise CannotLoad(f"{path}: no signature that can be served{': ' if notes else ''}{'; '.join(notes)}")
    check_names(path, signatures.values(), settings)
    definitions = {name: meta_graph.signature_def[name] for name in signatures}
    return SavedModel(
        path=path,
        meta_graph=meta_graph,
        tags=tuple(meta_graph.meta_info_def.tags),
        signatures=signatures,
        inputs={n: {k: info.name for k, info in d.inputs.items()} for n, d in definitions.items()},
        outputs={
            n: {spec.name: definitions[n].outputs[spec.name].name for spec in signature.outputs}
            for n, signature in signatures.items()
        },
        notes=tuple(notes),
    )


def parse(path: Path) -> Any:
    """The SavedModel message. The binary form goes before the text form, as in the loaders. Raises
    CannotLoad.
    """
    from google.protobuf.message import DecodeError
    from google.protobuf.text_format import ParseError

    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        return SavedModelMessage.FromString(binary.read_bytes() if binary.is_file() else from_text(text))
    except (DecodeError, ParseError, UnicodeDecodeError) as error:
        raise CannotLoad(f"{path}: the graph file is corrupt: {one_line(error)}") from None
    except OSError as error:
        raise CannotLoad(f"{path}: cannot read the graph file: {error.strerror or error}") from None


def from_text(file: Path) -> bytes:
    """The binary form of a graph in text form, which names fields that only TensorFlow's own messages know."""
    tensorflow()
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    written: bytes = text_format.Parse(
        file.read_text(encoding="utf-8"), saved_model_pb2.SavedModel()
    ).SerializeToString()
    return written


def choose_meta_graph(path: Path, meta_graphs: Iterable[Any]) -> Any:
    """The one tagged `serve` alone, else the one with the fewest tags besides, else the only one. Raises
    CannotLoad.
    """
    found = list(meta_graphs)
    if not found:
        raise CannotLoad(f"{path}: the graph file is empty or corrupt: it holds no meta graph")
    serving = [meta for meta in found if SERVE in meta.meta_info_def.tags]
    if not serving and len(found) > 1:
        tags = "; ".join(", ".join(meta.meta_info_def.tags) or "none" for meta in found)
        raise CannotLoad(f"{path}: none of its {len(found)} graphs is tagged {SERVE}; their tags are: {tags}")
    return min(serving or found, key=lambda meta: len(meta.meta_info_def.tags))


def unservable(definition: Any) -> str:
    """Why a signature cannot be served, or ""."""
    if not definition.outputs:
        return "it has no outputs"
    for kind, infos in (("input", definition.inputs), ("output", definition.outputs)):
        for name, info in sorted(infos.items()):
            if info.WhichOneof("encoding") not in (None, "name") or not info.name:
                return f"{kind} {name} is no plain tensor"
            try:
                TensorSpec(name, dtype_name(info.dtype), ()).numpy_dtype  # noqa: B018
            except ValueError:
                return f"{kind} {name} has a dtype that rows cannot have ({dtype_name(info.dtype)})"
    return ""


def to_signature(name: str, definition: Any, settings: LoadSettings) -> Signature:
    """The signature as the graph declares it."""
    return row_signature(
        name, tensors(definition.inputs), tensors(definition.outputs), settings, definition.method_name
    )


def tensors(infos: Any) -> dict[str, tuple[str, Shape]]:
    """The dtype and the whole shape of each, by name."""
    return {name: (dtype_name(info.dtype), shape_of(info)) for name, info in infos.items()}


def output_shapes(model: SavedModel) -> dict[str, dict[str, Shape]]:
    """The whole shapes of the outputs, as the graph declares them, by signature and name."""
    definitions = model.meta_graph.signature_def
    return {
        name: {spec.name: shape_of(definitions[name].outputs[spec.name]) for spec in signature.outputs}
        for name, signature in model.signatures.items()
    }


def shape_of(info: Any) -> Shape:
    """A TensorInfo's shape: None for an unknown rank, None inside for a free dimension."""
    if info.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
