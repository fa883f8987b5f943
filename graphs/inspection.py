"""The look before loading: what a model would do, read from its protobuf.

Any thread; pure but for resolving asset paths. Nothing of the graph is loaded or run. What is looked at is
what would run: the nodes behind the outputs of the served signatures, behind the ops that fill tables and
behind the one that restores variables, through every function they call, however deep; and the functions that
the TensorFlow 2 loader calls by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rowserve.graphs.errors import CannotLoad, ForbiddenOp
from rowserve.graphs.forbidden_ops import READ_ASSET, READ_VARIABLES, reaches_outside
from rowserve.graphs.origins import ASSET, OTHER, SAVER, Scope, kept_in_variables, node_name
from rowserve.graphs.saved_model import SavedModel
from rowserve.graphs.saved_model_messages import AssetFileDef

# Ops whose first input chooses a function and is not handed to it.
CHOOSING = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
CALLING = CHOOSING | {
    "PartitionedCall",
    "StatefulPartitionedCall",
    "TPUPartitionedCall",
    "While",
    "StatelessWhile",
}
# What the TensorFlow 2 loader calls while it loads, or when it lets go.
LIFECYCLE = ("_create_resource", "_initialize", "_destroy_resource")


@dataclass(frozen=True)
class Found:
    """A forbidden node: its op, and where it stands, readable."""

    op: str
    where: str


def inspect(model: SavedModel, allowed: Iterable[str] = ()) -> None:
    """Raise ForbiddenOp for ops that reach outside and are not allowed, CannotLoad for assets outside the
    model's folder.
    """
    check_assets(model)
    look = _Look(model.meta_graph, frozenset(allowed))
    try:
        found = list(dict.fromkeys([*look.main_graph(model), *look.loader_functions()]))
    except RecursionError:
        raise CannotLoad(f"{model.path}: its functions are nested too deeply to be looked at") from None
    if found:
        ops = sorted({each.op for each in found})
        places = "; ".join(f"{each.op} in {each.where}" for each in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ForbiddenOp(
            f"{model.path}: refused before anything of it ran: the graph reaches outside itself by {', '.join(ops)}"
            f" ({places}{more}); allow_ops in its card allows an op by name",
            ops,
        )


class _Look:
    """The walk over one meta graph. Each function is looked at once for each way its arguments come about."""

    def __init__(self, meta_graph: Any, allowed: frozenset[str]) -> None:
        self._meta = meta_graph
        self._allowed = allowed
        self._functions = {each.signature.name: each for each in meta_graph.graph_def.library.function}
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def main_graph(self, model: SavedModel) -> list[Found]:
        """What a session would run: the signatures, the init op, the restore op."""
        nodes = {node.name: node for node in self._meta.graph_def.node}
        saver = self._meta.saver_def
        assets = {node_name(name): ASSET for name, _ in asset_files(self._meta)}
        assets |= kept_in_variables(nodes, assets, self._functions.values())
        served = [name for tensors in model.outputs.values() for name in tensors.values()]
        # An asset's path is fed while tables are filled and at no other time, so nowhere else does its tensor
        # vouch for it.
        runs: list[tuple[list[str], dict[str, str]]] = [
            (served, {}),
            (init_ops(self._meta), assets),
            ([saver.restore_op_name], {node_name(saver.filename_tensor_name): SAVER}),
        ]
        return [
            found
            for roots, origins in runs
            for found in self._walk(Scope("the graph", nodes, origins), _reached(nodes, roots))
        ]

    def loader_functions(self) -> list[Found]:
        """What the TensorFlow 2 loader would call while loading, and the signatures as it would call them."""
        graph = self._meta.object_graph_def
        return [
            found
            for name in _functions_called(graph)
            if name in self._functions
            for found in self._function(name, self._captured(graph, name))
        ]

    def _captured(self, graph: Any, name: str) -> list[str]:
        """The origins of a function's arguments: those of the call are unknown, the last ones are captured
        objects.
        """
        bound = list(graph.concrete_functions[name].bound_inputs) if name in graph.concrete_functions else []
        count = len(self._functions[name].signature.input_arg)
        kinds = [
            ASSET if at < len(graph.nodes) and graph.nodes[at].WhichOneof("kind") == "asset" else OTHER for at in bound
        ]
        return ([OTHER] * max(0, count - len(kinds)) + kinds)[:count]

    def _function(self, name: str, origins: list[str]) -> Iterator[Found]:
        if (name, tuple(origins)) in self._seen:
            return
        self._seen.add((name, tuple(origins)))
        function = self._functions[name]
        nodes = {node.name: node for node in function.node_def}
        arguments = dict(zip((arg.name for arg in function.signature.input_arg), origins, strict=False))
        # All nodes: those that nothing needs still run where they have effects.
        yield from self._walk(Scope(f"function {name}", nodes, arguments), nodes.values())

    def _walk(self, scope: Scope, nodes: Iterable[Any]) -> Iterator[Found]:
        for node in nodes:
            if node.op not in self._allowed and _forbidden(node, scope):
                yield Found(node.op, f"node {node.name} of {scope.where}")
            for name in _functions_of(node, self._functions):
                count = len(self._functions[name].signature.input_arg)
                data = [tensor for tensor in node.input if not tensor.startswith("^")]
                passed = data[1:] if node.op in CHOOSING else data
                known = node.op in CALLING or node.op == name
                origins = [scope.origin(tensor) for tensor in passed] if known else []
                yield from self._function(name, (origins + [OTHER] * count)[:count])


def ops_behind(meta_graph: Any, tensors: Iterable[str]) -> frozenset[str]:
    """The ops that would run for these tensors, also those inside functions."""
    functions = {each.signature.name: each for each in meta_graph.graph_def.library.function}
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    ops: set[str] = set()
    seen: set[str] = set()
    todo = _reached(nodes, tensors)
    while todo:
        node = todo.pop()
        ops.add(node.op)
        for name in _functions_of(node, functions):
            if name not in seen:
                seen.add(name)
                todo += functions[name].node_def
    return frozenset(ops)


def _forbidden(node: Any, scope: Scope) -> bool:
    if node.op in READ_ASSET:
        return scope.origin(node.input[READ_ASSET[node.op]]) != ASSET
    if node.op in READ_VARIABLES:
        return scope.origin(node.input[READ_VARIABLES[node.op]]) != SAVER
    if node.op in {"CacheDataset", "CacheDatasetV2"}:
        return not _is_empty_text(scope.nodes.get(node_name(node.input[1])))
    return reaches_outside(node)


def _is_empty_text(node: Any) -> bool:
    """Whether a node is the constant "" (a dataset's cache in memory, not in a file)."""
    return node is not None and node.op == "Const" and list(node.attr["value"].tensor.string_val) in ([], [b""])


def _functions_of(node: Any, functions: Mapping[str, Any]) -> Iterator[str]:
    """The functions a node names in its attributes (calls, branches, loops, datasets), or is itself a call
    of.
    """
    if node.op in functions:
        yield node.op
    for value in node.attr.values():
        if value.func.name in functions:
            yield value.func.name
        for func in value.list.func:
            if func.name in functions:
                yield func.name


def _reached(nodes: Mapping[str, Any], roots: Iterable[str]) -> list[Any]:
    """The nodes behind `roots`, by data and by control."""
    seen: dict[str, Any] = {}
    todo = [node_name(root) for root in roots]
    while todo:
        name = todo.pop()
        if name in seen or name not in nodes:
            continue
        seen[name] = nodes[name]
        todo += [node_name(tensor) for tensor in nodes[name].input]
    return list(seen.values())


def init_ops(meta_graph: Any) -> list[str]:
    """The ops that the TensorFlow 1 loader runs once variables are restored, wherever a model's age put their
    names.
    """
    names = [
        info.name
        for key in ("__saved_model_init_op", "__saved_model_train_op")
        if key in meta_graph.signature_def
        for info in meta_graph.signature_def[key].outputs.values()
    ]
    for key in ("saved_model_main_op", "legacy_init_op", "saved_model_train_op"):
        if key in meta_graph.collection_def:
            names += list(meta_graph.collection_def[key].node_list.value)
    return names


def asset_files(meta_graph: Any) -> list[tuple[str, str]]:
    """(tensor that is fed the path, file name under assets/) of each asset, in both places where they are
    kept.
    """
    found = [(each.tensor_info.name, each.filename) for each in meta_graph.asset_file_def]
    if "saved_model_assets" in meta_graph.collection_def:
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = AssetFileDef.FromString(packed.value)
            found.append((asset.tensor_info.name, asset.filename))
    return found


def check_assets(model: SavedModel) -> None:
    """Raise CannotLoad where an asset lies outside the model's folder, by its name or by a link."""
    home = model.path.resolve()
    for _, name in asset_files(model.meta_graph):
        if not Path(model.path, "assets", name).resolve().is_relative_to(home):
            raise CannotLoad(f"{model.path}: its asset {name!r} lies outside the model's folder")


def _functions_called(graph: Any) -> Iterator[str]:
    """Names of the functions that the TensorFlow 2 loader calls, and of the signatures', from the object
    graph.
    """
    nodes = graph.nodes

    def names(at: int) -> Iterator[str]:
        if not 0 <= at < len(nodes):
            return
        node = nodes[at]
        yield from node.function.concrete_functions
        if node.bare_concrete_function.concrete_function_name:
            yield node.bare_concrete_function.concrete_function_name

    for index, node in enumerate(nodes):
        for child in node.children:
            if child.local_name in LIFECYCLE:
                yield from names(child.node_id)
            if index == 0 and child.local_name == "signatures" and 0 <= child.node_id < len(nodes):
                for signature in nodes[child.node_id].children:
                    yield from names(signature.node_id)
        for saveable in node.saveable_objects.values():
            yield from names(saveable.restore_function)
