"""Where a tensor's value comes from: the name of one of the model's own files, or anything else.

Pure, safe on any thread: it reads a graph's protobuf and never follows what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ASSET = "an asset of the model"
SAVER = "the model's own variables"
OTHER = ""
PASSING = frozenset({"Identity", "IdentityN", "StopGradient", "PlaceholderWithDefault", "EnsureShape"})


@dataclass
class Scope:
    """One graph or one function's body. `origins` says where tensors that are fed or handed in come from."""

    where: str
    nodes: Mapping[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def origin(self, tensor: str) -> str:
        """Where a tensor's value comes from, followed through ops that pass it on."""
        for _ in range(len(self.nodes) + 1):
            name = tensor.removeprefix("^").split(":", 1)[0]
            if name in self.origins:
                return self.origins[name]
            node = self.nodes.get(name)
            if node is None or node.op not in PASSING or not node.input:
                return OTHER
            # An op of several passes each input on in its place.
            at = int(tensor.rsplit(":", 1)[1]) if node.op == "IdentityN" and ":" in tensor else 0
            tensor = node.input[at]
        return OTHER


def kept_in_variables(nodes: Mapping[str, Any], known: Mapping[str, str], functions: Iterable[Any]) -> dict[str, str]:
    """The nodes that read a variable which nothing but known tensors of one origin is ever assigned to.

    TensorFlow 2 puts an asset's path into a variable and reads it back. A variable that is handed to a
    function, or that another handle may mean too, is left out.
    """
    if not known:
        return {}
    scope = Scope("the graph", nodes, dict(known))
    owners: dict[tuple[str, str], list[str]] = {}
    for node in [*nodes.values(), *(inner for function in functions for inner in function.node_def)]:
        if node.op == "VarHandleOp":
            shared = node.attr["shared_name"].s.decode("utf-8", "replace") or node.name
            owners.setdefault((node.attr["container"].s.decode("utf-8", "replace"), shared), []).append(node.name)
    users: dict[str, list[Any]] = {names[0]: [] for names in owners.values() if len(names) == 1}
    for node in nodes.values():
        for name in {node_name(tensor) for tensor in node.input} & users.keys():
            users[name].append(node)
    found: dict[str, str] = {}
    for using in users.values():
        written = {scope.origin(node.input[1]) for node in using if node.op == "AssignVariableOp"}
        plain = all(node.op in {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"} for node in using)
        if plain and len(written) == 1 and OTHER not in written:
            (origin,) = written
            found |= {node.name: origin for node in using if node.op == "ReadVariableOp"}
    return found


def node_name(tensor: str) -> str:
    """The node that makes a tensor, or that a control input waits for."""
    return tensor.removeprefix("^").split(":", 1)[0]
