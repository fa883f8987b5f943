"""Arithmetic with constants behind a convolution goes into its weights and one bias. Graph thread, at load.

Batch normalisation is such arithmetic: y = w * x becomes (s w) * x + b, where s and b are constants per channel
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2). TensorFlow then runs convolution, bias and
activation as one kernel, which it does not do by itself for depthwise convolutions. Zeros padded before a convolution
become its own padding where that is the same. Answers keep all but their last bits; whoever asks compares them before
believing it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.rows import Array

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
NORMALISATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
# What may stand between a constant and its use, and is worked out here once.
CONSTANT_MATHS = frozenset(
    {"Identity", "Mul", "AddV2", "Add", "Sub", "Neg", "RealDiv", "Rsqrt", "Sqrt", "Square", "Reshape", "Cast"}
)
SPATIAL = (1, 2)  # the places of height and width in a shape; rows come first and channels last


@dataclass(frozen=True)
class Step:
    """An operation that multiplies each channel, or adds to it: `constants` are the tensors that say by how much."""

    op: Any
    constants: tuple[Any, ...]

    def effect(self, values: Mapping[str, Array], channels: int) -> tuple[Array, Array] | None:
        """Factor and addend, [channels] float64 each; None where they are not the same in all places of a channel."""
        found: list[Array] = []
        for tensor in self.constants:
            value = per_channel(values[tensor.name], channels)
            if value is None:
                return None
            found.append(value)
        one, zero = np.ones(channels), np.zeros(channels)
        if self.op.type in NORMALISATIONS:
            scale, offset, mean, variance = found
            factor = scale / np.sqrt(variance + self.op.get_attr("epsilon"))
            return factor, offset - mean * factor
        if self.op.type == "Mul":
            return found[0], zero
        return one, -found[0] if self.op.type == "Sub" else found[0]


@dataclass(frozen=True)
class Folded:
    """A convolution and the steps behind it that go into it."""

    convolution: Any
    steps: Sequence[Step]
    weights: Array
    bias: Array


def has_convolutions(graph_def: Any) -> bool:
    """Whether there is anything to look at, in the graph or its functions."""
    nodes = chain(graph_def.node, *(function.node_def for function in graph_def.library.function))
    return any(node.op in CONVOLUTIONS for node in nodes)


def fold(graph_def: Any, kept: Collection[str]) -> Any:
    """The graph without what can be folded, or None where there is nothing. Functions are not looked into. `kept` are
    the names of nodes that are fed or fetched.

    Raises whatever TensorFlow raises.
    """
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    constant = _constant_names(graph, kept)
    convolutions = [op for op in graph.get_operations() if _can_fold(op, constant)]
    chains = [(op, list(_steps_behind(op, kept, constant))) for op in convolutions]
    pads = {op.name: pad for op in convolutions if (pad := _pad_before(op, constant)) is not None}
    wanted = [tensor for op, steps in chains for step in steps for tensor in (op.inputs[1], *step.constants)]
    wanted += [tensor for pad in pads.values() for tensor in pad.inputs[1:]]
    with tf.compat.v1.Session(graph=graph) as session:
        values = session.run({tensor.name: tensor for tensor in wanted})
    folded = [each for op, steps in chains if (each := _folded(op, steps, values)) is not None]
    own = {op.name: pads[op.name].inputs[0].name for op in convolutions if _is_own_padding(op, pads, values)}
    if not folded and not own:
        return None
    return tf.compat.v1.graph_util.extract_sub_graph(_rewritten(tf, graph_def, folded, own), list(kept))


def per_channel(value: Array, channels: int) -> Array | None:
    """[channels] float64, or None where the value is not one number for each channel, or one for all."""
    if value.size == 1 and value.ndim <= len(SPATIAL) + 2:
        return np.full(channels, value.reshape(()), np.float64)
    if value.shape[-1:] == (channels,) and value.size == channels and value.ndim <= len(SPATIAL) + 2:
        return value.reshape(channels).astype(np.float64)
    return None


def _constant_names(graph: Any, kept: Collection[str]) -> set[str]:
    """The operations whose values never change. A graph lists its operations after what they need."""
    found: set[str] = set()
    for op in graph.get_operations():
        if op.name in kept or op.control_inputs:
            continue
        if op.type == "Const" or (op.type in CONSTANT_MATHS and all(each.op.name in found for each in op.inputs)):
            found.add(op.name)
    return found


def _can_fold(op: Any, constant: Collection[str]) -> bool:
    if op.type not in CONVOLUTIONS or op.inputs[1].op.name not in constant:
        return False
    return op.get_attr("data_format") == b"NHWC" and op.get_attr("T").name in ("float32", "float64")


def _steps_behind(op: Any, kept: Collection[str], constant: Collection[str]) -> Iterator[Step]:
    """The operations that use a convolution's output one after the other, each alone."""
    while True:
        users = op.outputs[0].consumers()
        if op.name in kept or len(users) != 1 or op._control_outputs or any(t.consumers() for t in op.outputs[1:]):
            return
        step = _step(users[0], op.outputs[0], constant)
        if step is None:
            return
        yield step
        op = step.op


def _step(op: Any, before: Any, constant: Collection[str]) -> Step | None:
    if op.control_inputs:
        return None
    others = [tensor for tensor in op.inputs if tensor.name != before.name]
    if any(tensor.op.name not in constant for tensor in others):
        return None
    first = op.inputs[0].name == before.name
    if op.type in NORMALISATIONS:
        fits = first and len(others) == 4 and not op.get_attr("is_training") and op.get_attr("data_format") == b"NHWC"
    elif op.type == "BiasAdd":
        fits = first and op.get_attr("data_format") == b"NHWC"
    else:
        fits = len(others) == 1 and (op.type in ("Mul", "AddV2", "Add") or (op.type == "Sub" and first))
    return Step(op, tuple(others)) if fits else None


def _folded(op: Any, steps: Sequence[Step], values: Mapping[str, Array]) -> Folded | None:
    """As many of the steps as can be folded, one at least; None where only a bias is there already."""
    if not steps:
        return None
    weights = values[op.inputs[1].name]
    depthwise = op.type == "DepthwiseConv2dNative"
    channels = weights.shape[2] * weights.shape[3] if depthwise else weights.shape[3]
    factor, bias, taken = np.ones(channels), np.zeros(channels), 0
    for step in steps:
        effect = step.effect(values, channels)
        if effect is None:
            break
        factor, bias, taken = factor * effect[0], bias * effect[0] + effect[1], taken + 1
    if not taken or (taken == 1 and steps[0].op.type == "BiasAdd"):
        return None
    shaped = factor.reshape(weights.shape[2:]) if depthwise else factor
    return Folded(op, steps[:taken], (weights * shaped).astype(weights.dtype), bias.astype(weights.dtype))


def _pad_before(op: Any, constant: Collection[str]) -> Any:
    """The padding with constants before a convolution that does not pad by itself, or None."""
    pad = op.inputs[0].op
    if op.get_attr("padding") != b"VALID" or pad.type not in ("Pad", "PadV2"):
        return None
    return pad if all(tensor.op.name in constant for tensor in pad.inputs[1:]) else None


def _is_own_padding(op: Any, pads: Mapping[str, Any], values: Mapping[str, Array]) -> bool:
    """Whether the convolution would pad with as many zeros itself (https://www.tensorflow.org/api_docs/python/tf/nn)."""
    pad = pads.get(op.name)
    if pad is None or any(values[tensor.name] != 0 for tensor in pad.inputs[2:]):
        return False
    shape, kernel = pad.inputs[0].shape, op.inputs[1].shape
    want = [[0, 0] for _ in range(4)]
    for place in SPATIAL:
        size, stride = shape[place] if shape.rank == 4 else None, op.get_attr("strides")[place]
        if size is None or op.get_attr("dilations")[place] != 1:
            return False
        total = max((-(-size // stride) - 1) * stride + kernel[place - 1] - size, 0)
        want[place] = [total // 2, total - total // 2]
    return bool(np.array_equal(values[pad.inputs[1].name], want))


def _rewritten(tf: Any, graph_def: Any, folded: Sequence[Folded], own_padding: Mapping[str, str]) -> Any:
    """The nodes with the convolutions' weights changed, and a bias in the place of each chain's last step."""
    by_convolution = {each.convolution.name: each for each in folded}
    by_last = {each.steps[-1].op.name: each for each in folded}
    gone = {step.op.name for each in folded for step in each.steps[:-1]}
    written = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name in gone:
            continue
        copy = written.node.add()
        if node.name in by_last:
            each = by_last[node.name]
            copy.name, copy.op = node.name, "BiasAdd"
            copy.input.extend([each.convolution.name, _constant(tf, written, f"{node.name}/folded", each.bias)])
            copy.attr["T"].CopyFrom(node.attr["T"])
            copy.attr["data_format"].s = b"NHWC"
            continue
        copy.CopyFrom(node)
        if node.name in by_convolution:
            copy.input[1] = _constant(tf, written, f"{node.name}/folded", by_convolution[node.name].weights)
        if node.name in own_padding:
            copy.input[0] = own_padding[node.name]
            copy.attr["padding"].s = b"SAME"
    return written


def _constant(tf: Any, graph_def: Any, name: str, value: Array) -> str:
    node = graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return name
