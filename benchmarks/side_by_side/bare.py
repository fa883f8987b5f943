"""The bare models, in a child process: the right answers, and what an engine does with nothing around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.rows import Array

Engine = Callable[[Array], Array]
AT_ONCE = 16


@contextmanager
def child() -> Iterator[ProcessPoolExecutor]:
    """The process; TensorFlow is never imported here."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet) as pool:
        yield pool


def quiet() -> None:
    """What TensorFlow logs before it can be told not to goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@cache
def tensorflow_engine(version: Path) -> Engine:
    """The SavedModel's function, its variables frozen to constants, in a session."""
    tf = tensorflow()
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.framework import convert_to_constants

    loaded = tf.saved_model.load(str(version))
    frozen = convert_to_constants.convert_variables_to_constants_v2(loaded.signatures["serving_default"])
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
    session = tf.compat.v1.Session(graph=graph)
    options = config_pb2.CallableOptions(feed=[frozen.inputs[0].name], fetch=[frozen.outputs[0].name])
    call = session._make_callable_from_options(options)  # the fastest there is; make_callable is Session.run
    return lambda rows: call(rows)[0]


@cache
def openvino_engine(version: Path) -> Engine:
    """OpenVINO in float32."""
    import openvino as ov

    core = ov.Core()
    model = ov.convert_model(str(version))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return lambda rows: request.infer([rows])[compiled.outputs[0]]


ENGINES: dict[str, Callable[[Path], Engine]] = {"tensorflow": tensorflow_engine, "openvino": openvino_engine}


def answers(version: Path, rows: Array) -> Array:
    """What the SavedModel says to each row."""
    engine = tensorflow_engine(version)
    return np.concatenate([engine(rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)])


def rows_per_second(engine: str, version: Path, rows: Array, seconds: float) -> float:
    """Of batches of these rows, one after the other."""
    call = ENGINES[engine](version)
    call(rows)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call(rows)
        done += len(rows)
    return done / (time.perf_counter() - began)


def has(module: str) -> bool:
    """Whether a package is there, without importing it."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def save_tiny(folder: Path, **more: Any) -> None:
    """A stand-in for the kit's tiny model: softmax(x W + b), x float32 [N, 16], y float32 [N, 4]."""
    import tensorflow as tf

    random = np.random.default_rng(1234)
    width = more.get("width", 16)
    module = tf.Module()
    module.w = tf.Variable(random.standard_normal((width, 4)).astype(np.float32) * 2 / width**0.5)
    module.b = tf.Variable(random.standard_normal(4).astype(np.float32) * 0.1)

    @tf.function(input_signature=[tf.TensorSpec([None, width], tf.float32, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": tf.nn.softmax(tf.matmul(x, module.w) + module.b)}

    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": serve})


def save_pictures(folder: Path) -> None:
    """A model that takes pictures and costs next to nothing: softmax(mean colour W), x uint8 [N, 224, 224, 3]."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(1234).standard_normal((3, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        thumbnails = tf.cast(x[:, ::16, ::16, :], tf.float32) / 255
        return {"y": tf.nn.softmax(tf.matmul(tf.reduce_mean(thumbnails, (1, 2)), module.w))}

    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": serve})


def save_mobilenet(folder: Path) -> None:
    """A stand-in for the kit's mobilenet: MobileNetV2, random weights scaled so that answers differ."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1234)
    net = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))
    from benchmarks.side_by_side.rows import MOBILENET

    pictures = MOBILENET.rows(16, 99).astype(np.float32) / 127.5 - 1
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    net(pictures, training=True)
    last = net.layers[-1]
    weights, _ = last.get_weights()
    scores = keras.Model(net.input, net.layers[-2].output)(pictures, training=False).numpy() @ weights
    scale = 1 / scores.std(0).mean()
    last.set_weights([weights * scale, -scores.mean(0) * scale])

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": net(tf.cast(x, tf.float32) / 127.5 - 1, training=False)}

    net.serve = serve
    tf.saved_model.save(net, str(folder / "1"), signatures={"serving_default": serve})
