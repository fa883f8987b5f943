"""Serialised tf.train.Example messages, made up for the features a graph parses: words would only be refused.

Pure but for TensorFlow's reading of constants; any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from rowserve.graphs.origins import node_name
from rowserve.graphs.saved_model_messages import dtype_name

PARSERS = frozenset({"ParseExample", "ParseExampleV2", "ParseSingleExample"})
Value = bytes | float | int


@dataclass(frozen=True)
class Feature:
    """One feature: `dtype` is float32, int64 or string; `length` is how many values it has, None where that is free."""

    name: bytes
    dtype: str
    length: int | None


def features_of(meta_graph: Any) -> tuple[Feature, ...]:
    """The features that a graph's parsers ask for, by name; () where it parses none or its keys are not constants."""
    found: dict[bytes, Feature] = {}
    graph = meta_graph.graph_def
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        if any(node.op in PARSERS for node in nodes):
            by_name = {node.name: node for node in nodes}
            for node in nodes:
                if node.op in PARSERS:
                    found |= {feature.name: feature for feature in _parsed(node, by_name)}
    return tuple(found[name] for name in sorted(found))


def _parsed(node: Any, nodes: Mapping[str, Any]) -> Iterator[Feature]:
    sparse, dense, ragged = _keys(node, nodes)
    attr = node.attr
    for keys, types in ((sparse, attr["sparse_types"]), (ragged, attr["ragged_value_types"])):
        for key, number in zip(keys, types.list.type, strict=False):
            yield Feature(key, dtype_name(number), None)
    for key, number, shape in zip(dense, attr["Tdense"].list.type, attr["dense_shapes"].list.shape, strict=False):
        length = 1
        for dimension in shape.dim:
            length *= max(dimension.size, 1)
        yield Feature(key, dtype_name(number), length)


def _keys(node: Any, nodes: Mapping[str, Any]) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes]]:
    """The keys of sparse, dense and ragged features, which each of the three ops keeps in a place of its own."""
    data = [nodes.get(node_name(tensor)) for tensor in node.input]
    if node.op == "ParseSingleExample":
        return node.attr["sparse_keys"].list.s, node.attr["dense_keys"].list.s, ()
    if node.op == "ParseExampleV2":
        return _constant(data[2:3]), _constant(data[3:4]), _constant(data[4:5])
    sparse = 2 + node.attr["Nsparse"].i
    return _constant(data[2:sparse]), _constant(data[sparse : sparse + node.attr["Ndense"].i]), ()


def _constant(nodes: Iterable[Any]) -> list[bytes]:
    """The strings of constants, one after the other."""
    tensors = [node.attr["value"].tensor for node in nodes if node is not None and node.op == "Const"]
    return [value for tensor in tensors for value in _strings(tensor)]


def _strings(tensor: Any) -> list[bytes]:
    """All elements; those that are left out at the end are equal to the last one there."""
    count = prod(dim.size for dim in tensor.tensor_shape.dim)
    there = list(tensor.string_val) or [b""]
    return (there + [there[-1]] * (count - len(there)))[:count]


def encode(values: Mapping[bytes, Sequence[Value]]) -> bytes:
    """The message, in its wire form: a map of feature names to lists of bytes, floats or integers."""
    entries = (_field(1, _field(1, name) + _field(2, _list(found))) for name, found in values.items())
    return _field(1, b"".join(entries))


def _list(values: Sequence[Value]) -> bytes:
    if values and isinstance(values[0], bytes):
        return _field(1, b"".join(_field(1, value) for value in values if isinstance(value, bytes)))
    if values and isinstance(values[0], float):
        return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
    return _field(3, _field(1, b"".join(_varint(int(value)) for value in values)))


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
