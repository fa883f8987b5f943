"""The two TensorFlow loaders. Neither opens every SavedModel there is, and neither is believed before a real run.

Graph thread, at load. Both raise whatever TensorFlow raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rowserve.graphs.engine import session_config, tensorflow
from rowserve.graphs.execution import schedulable_cores
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.runners import FunctionGraph, SessionGraph
from rowserve.graphs.saved_model import SavedModel

OpenGraph = SessionGraph | FunctionGraph


def open_v1(model: SavedModel, settings: LoadSettings) -> SessionGraph:
    """As the TensorFlow 1 loader opens it, in a session of its own."""
    tf = tensorflow()
    session: Any = tf.compat.v1.Session(graph=tf.Graph(), config=session_config(settings))
    try:
        tf.compat.v1.saved_model.load(session, list(model.tags), str(model.path), clear_devices=True)
        return SessionGraph(session, model.signatures, model.inputs, model.outputs, loader="v1", frozen=False)
    except BaseException:
        session.close()
        raise


def open_v2(model: SavedModel, settings: LoadSettings) -> FunctionGraph:
    """As the TensorFlow 2 loader opens it: concrete functions."""
    tf = tensorflow()
    try:
        # The pools of the eager runtime are made with its first operation, and never again.
        tf.config.threading.set_intra_op_parallelism_threads(settings.op_threads)
        tf.config.threading.set_inter_op_parallelism_threads(settings.inter_op_threads or schedulable_cores())
    except RuntimeError:
        pass
    loaded = tf.saved_model.load(str(model.path), tags=list(model.tags))
    return FunctionGraph({name: loaded.signatures[name] for name in model.signatures}, model.signatures, keep=loaded)


OPENERS: dict[str, Callable[[SavedModel, LoadSettings], OpenGraph]] = {"v1": open_v1, "v2": open_v2}
