"""An ONNX model's file as it is on disk: its inputs and outputs by name, the files beside it, and what it may not do.

Any thread; nothing of it is loaded or run, and no engine is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowserve.graphs.errors import CannotLoad, ForbiddenOp, one_line
from rowserve.graphs.model_files import ONNX_FILE
from rowserve.graphs.proto_tables import ProtoTable, message_classes

# What stands in every ONNX runtime. An op of any other domain would have to come out of a library of somebody's.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "org.openvinotoolkit"})
EXTERNAL = 1

TABLE = ProtoTable(
    "onnx",
    {
        "StringStringEntryProto": "string key = 1; string value = 2",
        "TensorProto": """
            string name = 8; repeated StringStringEntryProto external_data = 13; int32 data_location = 14""",
        "SparseTensorProto": "TensorProto values = 1; TensorProto indices = 2",
        "ValueInfoProto": "string name = 1",
        "AttributeProto": """
            string name = 1; TensorProto t = 5; GraphProto g = 6; repeated TensorProto tensors = 10;
            repeated GraphProto graphs = 11; SparseTensorProto sparse_tensor = 22;
            repeated SparseTensorProto sparse_tensors = 23""",
        "NodeProto": "string name = 3; string op_type = 4; repeated AttributeProto attribute = 5; string domain = 7",
        "GraphProto": """
            repeated NodeProto node = 1; repeated TensorProto initializer = 5; repeated ValueInfoProto input = 11;
            repeated ValueInfoProto output = 12; repeated SparseTensorProto sparse_initializer = 15""",
        "FunctionProto": "string name = 1; repeated NodeProto node = 7; string domain = 10",
        "ModelProto": "GraphProto graph = 7; repeated FunctionProto functions = 25",
    },
)
ModelProto = message_classes(TABLE)["onnx.ModelProto"]


@dataclass(frozen=True)
class OnnxModel:
    """What a version's folder holds: `file`, the names of its inputs (weights are none) and outputs, and the files with
    weights that it names, relative to the folder.
    """

    file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    beside: tuple[str, ...]


def read_onnx(folder: Path) -> OnnxModel:
    """The model in a folder. Raises CannotLoad; ForbiddenOp for ops that only a library outside could run."""
    from google.protobuf.message import DecodeError

    file = folder / ONNX_FILE
    try:
        message = ModelProto.FromString(file.read_bytes())
    except DecodeError as error:
        raise CannotLoad(f"{file}: the graph file is corrupt: {one_line(error)}") from None
    except OSError as error:
        raise CannotLoad(f"{file}: cannot read the graph file: {error.strerror or error}") from None
    if not message.graph.output:
        raise CannotLoad(f"{file}: the graph file is empty or corrupt: it holds no outputs")
    try:
        tensors, nodes = list(_tensors(message)), list(_nodes(message))
    except RecursionError:
        raise CannotLoad(f"{file}: its graphs are nested too deeply to be looked at") from None
    _check_domains(file, message, nodes)
    weights = {tensor.name for tensor in message.graph.initializer}
    return OnnxModel(
        file,
        tuple(each.name for each in message.graph.input if each.name not in weights),
        tuple(each.name for each in message.graph.output),
        tuple(sorted({_beside(folder, tensor) for tensor in tensors if tensor.data_location == EXTERNAL})),
    )


def _check_domains(file: Path, message: Any, nodes: list[Any]) -> None:
    own = {(function.domain, function.name) for function in message.functions}
    strange = sorted(
        {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in DOMAINS}
        - {f"{domain}.{name}" for domain, name in own}
    )
    if strange:
        raise ForbiddenOp(f"{file}: refused: its ops {', '.join(strange)} are in a library outside the model", strange)


def _beside(folder: Path, tensor: Any) -> str:
    """The file with a tensor's values. Raises CannotLoad where it lies outside the folder, by name or by a link."""
    place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    inside = (folder / place).resolve().is_relative_to(folder.resolve())
    if not place or not inside:
        raise CannotLoad(f"{folder}: the weights {tensor.name!r} lie outside the model's folder, in {place!r}")
    if not (folder / place).is_file():
        raise CannotLoad(f"{folder}: the weights {tensor.name!r} are not there: no file {place!r}")
    return place


def _graphs(message: Any) -> Iterator[Any]:
    """The main graph and the functions: everything with nodes that is not inside a node."""
    yield message.graph
    yield from message.functions


def _nodes(message: Any) -> Iterator[Any]:
    for graph in _graphs(message):
        yield from _inside(graph)


def _inside(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _inside(inner)


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in the file, however deep."""
    yield from _held(message.graph)
    for node in _nodes(message):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _held(inner)


def _held(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
