from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.folding import CONVOLUTIONS, fold, has_convolutions, per_channel

CHANNELS = 4
tf = tensorflow()
seeded = np.random.default_rng


def weights(*shape: int, seed: int = 0) -> Any:
    return tf.constant(seeded(seed).normal(size=shape).astype(np.float32))


def channel(seed: int = 1, *shape: int) -> Any:
    return tf.constant(seeded(seed).uniform(0.5, 2, size=shape or (CHANNELS,)).astype(np.float32))


def pointwise(x: Any) -> Any:
    return tf.nn.conv2d(x, weights(1, 1, CHANNELS, CHANNELS), 1, "SAME")


def depthwise(x: Any) -> Any:
    return tf.nn.depthwise_conv2d(x, weights(3, 3, CHANNELS, 1), [1, 1, 1, 1], "SAME")


def normalised(y: Any) -> Any:
    """As Keras 3 writes it down."""
    factor = tf.math.rsqrt(channel(2) + 1e-3) * channel(3)
    return y * factor + (channel(4) - channel(5) * factor)


def fused(y: Any, *, training: bool = False) -> Any:
    found = tf.compat.v1.nn.fused_batch_norm(y, channel(2), channel(3), channel(4), channel(5), is_training=training)
    return found[0]


class Graph:
    """What `build` makes of x [rows, 6, 6, 4], as saved and folded."""

    def __init__(self, build: Callable[[Any], Any], size: int | None = 6) -> None:
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, [None, size, size, CHANNELS], name="x")
            fetched = build(x)
            made = fetched if isinstance(fetched, tuple) else (fetched,)
            self.outputs = [tf.identity(each, name=f"y{at}").op.name for at, each in enumerate(made)]
        self.saved = graph.as_graph_def()
        self.folded = fold(self.saved, ["x", *self.outputs])

    def ops(self) -> list[str]:
        """What is left, but for constants and the ends."""
        return [node.op for node in self.folded.node if node.op not in ("Const", "Placeholder", "Identity")]

    def answers(self, graph_def: Any) -> list[Any]:
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
        rows = seeded(9).normal(size=(3, 6, 6, CHANNELS)).astype(np.float32)
        with tf.compat.v1.Session(graph=graph) as session:
            found: list[Any] = session.run([f"{name}:0" for name in self.outputs], {"x:0": rows})
        return found

    def check(self) -> None:
        for one, other in zip(self.answers(self.saved), self.answers(self.folded), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convolution", [pointwise, depthwise])
@pytest.mark.parametrize("normalise", [normalised, fused])
def test_normalisation_becomes_a_bias(convolution: Any, normalise: Any) -> None:
    graph = Graph(lambda x: tf.nn.relu6(normalise(convolution(x))))
    assert graph.ops()[1:] == ["BiasAdd", "Relu6"]
    assert graph.ops()[0] in CONVOLUTIONS
    graph.check()


def test_several_steps_become_one() -> None:
    graph = Graph(lambda x: 3.0 * (tf.nn.bias_add(pointwise(x), channel()) - channel(2, 1, 1, 1, CHANNELS)))
    assert graph.ops() == ["Conv2D", "BiasAdd"]
    graph.check()


@pytest.mark.parametrize(
    "build",
    [
        lambda x: tf.nn.bias_add(pointwise(x), channel()),  # a bias already
        lambda x: channel() - pointwise(x),
        lambda x: pointwise(x) * channel(1, 6, 6, CHANNELS),  # not the same in all places
        lambda x: pointwise(x) * channel(1, 3, 1, 1, CHANNELS),
        lambda x: pointwise(x) * channel(1, 1, 1, 1, 1, CHANNELS),
        lambda x: pointwise(x) * tf.reduce_mean(x),
        lambda x: tf.nn.conv2d(x, tf.reshape(x[0, :1, :, :], [1, 6, CHANNELS, 1]), 1, "SAME") * 2.0,
        lambda x: fused(pointwise(x), training=True),
        lambda x: x * channel(),
    ],
)
def test_what_is_not_a_constant_of_each_channel_stays(build: Any) -> None:
    assert Graph(build).folded is None


def test_what_others_need_too_stays() -> None:
    def build(x: Any) -> tuple[Any, ...]:
        y = pointwise(x)
        return y * channel(), y, depthwise(x) * 2.0

    graph = Graph(build)
    assert graph.folded is not None
    assert graph.ops().count("Mul") == 1
    graph.check()


def test_fed_and_fetched_nodes_stay() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, CHANNELS], name="x")
        y = pointwise(x)
        tf.identity(y * tf.identity(channel(), name="fed"), name="out")
    saved = graph.as_graph_def()
    assert fold(saved, ["x", "out", "fed"]) is None
    assert fold(saved, ["x", "out", y.op.name]) is None
    assert fold(saved, ["x", "out"]) is not None


def test_an_order_that_was_asked_for_stays() -> None:
    def build(x: Any) -> Any:
        y = pointwise(x)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x < 100), [x])]):
            return y * channel()

    assert Graph(build).folded is None


@pytest.mark.parametrize(
    ("before", "after", "stride", "same"), [(0, 1, 2, True), (1, 1, 1, True), (1, 0, 2, False), (1, 1, 2, False)]
)
@pytest.mark.parametrize("value", [0, 1])
def test_zeros_in_front_become_the_convolutions_own(
    before: int, after: int, stride: int, same: bool, value: int
) -> None:
    def build(x: Any) -> Any:
        space = [before, after]
        padded = tf.pad(x, [[0, 0], space, space, [0, 0]], constant_values=value)
        y = tf.nn.depthwise_conv2d(padded, weights(3, 3, CHANNELS, 1), [1, stride, stride, 1], "VALID")
        return y * channel()

    graph = Graph(build)
    assert any(op.startswith("Pad") for op in graph.ops()) is not (same and value == 0)
    graph.check()


def test_a_free_height_keeps_its_zeros() -> None:
    def build(x: Any) -> Any:
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.conv2d(padded, weights(3, 3, CHANNELS, CHANNELS), 1, "VALID") * 2.0

    graph = Graph(build, size=None)
    assert "Pad" in graph.ops()
    graph.check()


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["mul", "add", "sub", "fused", "bias", "relu", "pointwise", "depthwise"]), max_size=8))
def test_any_order_of_them_answers_alike(order: list[str]) -> None:
    steps: dict[str, Callable[[Any], Any]] = {
        "mul": lambda y: channel(6, 1, 1, CHANNELS) * y,
        "add": lambda y: y + channel(7),
        "sub": lambda y: y - channel(8),
        "fused": fused,
        "bias": lambda y: tf.nn.bias_add(y, channel(9)),
        "relu": tf.nn.relu,
        "pointwise": pointwise,
        "depthwise": depthwise,
    }

    def build(x: Any) -> Any:
        for name in order:
            x = steps[name](x)
        return x

    graph = Graph(build)
    if graph.folded is not None:
        graph.check()


def test_a_graph_without_convolutions_is_told_at_once() -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1)
    assert not has_convolutions(graph.as_graph_def())
    inside = tf.function(pointwise).get_concrete_function(tf.TensorSpec([None, 6, 6, CHANNELS], tf.float32))
    with tf.Graph().as_default() as outer:
        inside(tf.zeros([1, 6, 6, CHANNELS]))
    assert has_convolutions(outer.as_graph_def())


def test_per_channel() -> None:
    assert per_channel(np.array([[2.0]]), 3).tolist() == [2, 2, 2]  # type: ignore[union-attr]
    assert per_channel(np.ones((1, 3)), 3).tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert per_channel(np.ones(3), 1) is None
    assert per_channel(np.ones((3, 1)), 3) is None
