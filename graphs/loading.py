"""From a SavedModel folder to a GraphSession: look, load, try, freeze, test.

Blocking (seconds); on the thread that will run the graph, or before that starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.engine import session_config, tensorflow
from rowserve.graphs.errors import CannotLoad, GraphError, one_line
from rowserve.graphs.execution import execution
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.runners import SessionGraph
from rowserve.graphs.saved_model import SavedModel, read_saved_model
from rowserve.graphs.session import GraphSession

__all__ = ["LoadSettings", "load"]


def load(path: Path, settings: LoadSettings) -> GraphSession:
    """The model in that folder, ready to run. Raises CannotLoad."""
    digest = fingerprint(path)
    model = read_saved_model(path, settings)
    try:
        graph = open_v1(model, settings)
    except GraphError:
        raise
    except Exception as error:  # noqa: BLE001
        raise CannotLoad(f"{path}: {one_line(error)}") from None
    description = ModelDescription(
        fingerprint=digest,
        signatures=model.signatures,
        loader=graph.loader,
        frozen=graph.frozen,
        execution=execution(
            exact=settings.exact,
            op_threads=settings.op_threads,
            loader=graph.loader,
            frozen=graph.frozen,
            sizes={},
        ),
        notes=model.notes,
    )
    return GraphSession(graph, description)


def open_v1(model: SavedModel, settings: LoadSettings) -> SessionGraph:
    """The graph as the TensorFlow 1 loader opens it, in a session of its own. Raises what TensorFlow raises."""
    tf = tensorflow()
    session: Any = tf.compat.v1.Session(graph=tf.Graph(), config=session_config(settings))
    try:
        tf.compat.v1.saved_model.load(session, list(model.tags), str(model.path), clear_devices=True)
        return SessionGraph(session, model.signatures, model.inputs, model.outputs, loader="v1", frozen=False)
    except BaseException:
        session.close()
        raise
