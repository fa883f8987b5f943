"""Variables to constants: a graph that needs no lookups at run time and has what never changes folded.

Graph thread, at load. Whoever asks compares the result with the graph as saved before believing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rowserve.graphs.engine import session_config, tensorflow
from rowserve.graphs.folding import fold, has_convolutions
from rowserve.graphs.inspection import asset_files, init_ops
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.origins import node_name
from rowserve.graphs.runners import FunctionGraph, SessionGraph
from rowserve.graphs.saved_model import SavedModel

# A graph is one protobuf message, which ends at 2 GiB.
MOST_BYTES = 1_800_000_000
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})


class NothingToFreeze(Exception):
    """The graph has nothing that would become another, or is too large to hold it."""


def freeze_session(model: SavedModel, graph: SessionGraph, settings: LoadSettings, folded: bool) -> SessionGraph:
    """The same signatures in a session of their own, without variables; tables are filled anew by the init op.

    Raises NothingToFreeze, or whatever TensorFlow raises where the graph cannot do without its variables.
    """
    tf = tensorflow()
    from tensorflow.python.framework import convert_to_constants

    whole = graph.session.graph.as_graph_def()
    variables, folded = any(node.op in VARIABLES for node in whole.node), folded and has_convolutions(whole)
    _check_size(model, variables or folded)
    starts = [node_name(name) for name in init_ops(model.meta_graph)]
    tensors = (tensor for names in (model.inputs, model.outputs) for each in names.values() for tensor in each.values())
    kept = sorted({*map(node_name, tensors), *starts})
    # An asset's path is put into a variable by the init op: that one must stay a variable.
    written = sorted(_variables_behind(tf, whole, starts))
    convert = convert_to_constants.convert_variables_to_constants_from_session_graph
    if _looks_up_in_functions(whole):
        whole = _inlined(tf, graph.session.graph, whole, kept)
    constant = convert(graph.session, whole, kept, variable_names_denylist=written)
    if folded:
        less = fold(_inlined(tf, graph.session.graph, constant, kept), kept)
        constant, folded = less or constant, less is not None
        _check_size(model, variables or folded)
    frozen = tf.Graph()
    with frozen.as_default():
        tf.import_graph_def(constant, name="")
    session = tf.compat.v1.Session(graph=frozen, config=session_config(settings))
    try:
        if starts:
            session.run([frozen.get_operation_by_name(name) for name in starts], _asset_feeds(model, constant))
        ways = (model.signatures, model.inputs, model.outputs)
        return SessionGraph(session, *ways, loader="v1", frozen=True, folded=folded)
    except BaseException:
        session.close()
        raise


def freeze_functions(
    model: SavedModel, functions: Mapping[str, Any], settings: LoadSettings, folded: bool
) -> SessionGraph:
    """Concrete functions as one graph in a session, each under a scope of its own.

    Raises ValueError where a function holds more than variables (a table), or whatever TensorFlow raises.
    """
    tf = tensorflow()
    from tensorflow.python.framework import convert_to_constants

    _check_size(model, True)
    graph = tf.Graph()
    inputs: dict[str, dict[str, str]] = {}
    outputs: dict[str, dict[str, str]] = {}
    for index, (name, signature) in enumerate(model.signatures.items()):
        function = functions[name]
        frozen = convert_to_constants.convert_variables_to_constants_v2(function)
        arguments = list(function._arg_keywords)
        if len(frozen.inputs) != len(arguments):
            raise ValueError(f"signature {name} holds what cannot be frozen")
        scope = f"signature_{index}"
        constant = frozen.graph.as_graph_def()
        if folded and has_convolutions(constant):
            constant = fold(constant, [node_name(t.name) for t in (*frozen.inputs, *frozen.outputs)]) or constant
        with graph.as_default():
            tf.import_graph_def(constant, name=scope)
        inputs[name] = {key: f"{scope}/{tensor.name}" for key, tensor in zip(arguments, frozen.inputs, strict=True)}
        keys = sorted(function.structured_outputs)
        every = {key: f"{scope}/{tensor.name}" for key, tensor in zip(keys, frozen.outputs, strict=True)}
        outputs[name] = {spec.name: every[spec.name] for spec in signature.outputs}
    session = tf.compat.v1.Session(graph=graph, config=session_config(settings))
    try:
        return SessionGraph(session, model.signatures, inputs, outputs, loader="v2 frozen", frozen=True, folded=folded)
    except BaseException:
        session.close()
        raise


def freeze(
    model: SavedModel, graph: SessionGraph | FunctionGraph, settings: LoadSettings, folded: bool
) -> SessionGraph:
    """Whichever of the two fits; with `folded`, arithmetic goes into weights (see `folding`)."""
    if isinstance(graph, SessionGraph):
        return freeze_session(model, graph, settings, folded)
    return freeze_functions(model, graph.functions, settings, folded)


def _check_size(model: SavedModel, anything: bool) -> None:
    if not anything:
        raise NothingToFreeze("it has no variables, and no convolution to fold anything into")
    size = sum(file.stat().st_size for file in Path(model.path, "variables").glob("*") if file.is_file())
    if size > MOST_BYTES:
        raise NothingToFreeze("its variables are too large for one graph")


def _looks_up_in_functions(graph_def: Any) -> bool:
    """Whether a variable is gathered from inside a function, which TensorFlow's own conversion passes over."""
    return any(node.op.startswith("ResourceGather") for each in graph_def.library.function for node in each.node_def)


def _inlined(tf: Any, graph: Any, graph_def: Any, kept: Iterable[str]) -> Any:
    """The graph with its calls replaced by what they call."""
    from tensorflow.python.grappler import tf_optimizer

    with graph.as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def, graph=graph, clear_devices=True)
    # The collection by which this optimizer knows what must stay.
    train_op = meta_graph.collection_def["train_op"]
    train_op.Clear()
    train_op.node_list.value.extend(kept)
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _variables_behind(tf: Any, graph_def: Any, starts: Iterable[str]) -> set[str]:
    """The variables that the init ops touch."""
    part = tf.compat.v1.graph_util.extract_sub_graph(graph_def, list(starts))
    return {node.name for node in part.node if node.op in VARIABLES}


def _asset_feeds(model: SavedModel, graph_def: Any) -> dict[str, str]:
    there = {node.name for node in graph_def.node}
    folder = model.path / "assets"
    return {name: str(folder / file) for name, file in asset_files(model.meta_graph) if node_name(name) in there}
