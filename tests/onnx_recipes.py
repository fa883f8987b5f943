"""Makers of small ONNX models: `linear(folder)` and its like write one as model.onnx and return the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.model_recipes import numbers

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Port = tuple[str, int, Sequence[Any]]


def save(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    weights: Mapping[str, Any] | None = None,
    **how: Any,
) -> Path:
    """Write a graph of these nodes; `how` goes to onnx.save."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx", **how)
    return folder


def linear(folder: Path, batch: Any = "N", **how: Any) -> Path:
    """x [batch,4] -> y [batch,3], x @ w + b, the same as the SavedModel of that name."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    weights = {"w": numbers(4, 3), "b": numbers(3, seed=8)}
    return save(folder, nodes, [("x", FLOAT, [batch, 4])], [("y", FLOAT, [batch, 3])], weights, **how)


def two_of_each(folder: Path) -> Path:
    """a [N,2], b [N,2], scale [] -> total [N,2], (a + b) * scale; less [N,2], a - b."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["total"]),
        helper.make_node("Sub", ["a", "b"], ["less"]),
    ]
    inputs = [("a", FLOAT, ["N", 2]), ("b", FLOAT, ["N", 2]), ("scale", FLOAT, [])]
    return save(folder, nodes, inputs, [("total", FLOAT, ["N", 2]), ("less", FLOAT, ["N", 2])])


def ids(folder: Path) -> Path:
    """ids [N,5] int64 -> next [N,5] int64."""
    nodes = [helper.make_node("Add", ["ids", "one"], ["next"])]
    one = {"one": np.array(1, np.int64)}
    return save(folder, nodes, [("ids", INT64, ["N", 5])], [("next", INT64, ["N", 5])], one)


def centred(folder: Path) -> Path:
    """x [N,4] -> y [N,4], less the mean of the batch: an answer that hangs on its company."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save(folder, nodes, [("x", FLOAT, ["N", 4])], [("y", FLOAT, ["N", 4])])


def strange_op(folder: Path, domain: str = "") -> Path:
    """x [N,4] -> y [N,4] by an op that no engine has."""
    nodes = [helper.make_node("NoSuchOp", ["x"], ["y"], domain=domain)]
    return save(folder, nodes, [("x", FLOAT, ["N", 4])], [("y", FLOAT, ["N", 4])])


def outside(folder: Path, place: str) -> Path:
    """`linear`, with its weights in a file of that name."""
    linear(folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = place
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder
