"""A first real run of a freshly opened graph: which signatures run at all, and on which made-up rows.

Graph thread, at load. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from rowserve.graphs.errors import GraphError, RowBroken
from rowserve.graphs.made_up_examples import Feature
from rowserve.graphs.made_up_rows import Kind, kinds, make_up
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.run_watch import watched_run
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature

# How many kinds of made-up rows are tried before a signature counts as one that refuses them all.
TRIES = 60
# Kinds that a signature is tested on: an answer that saturates on one kind of values may tell more on another.
WANTED = 2


@dataclass
class Trial:
    """What came of one signature: the kinds of rows it took, and its last error where it took none."""

    passed: list[Kind] = field(default_factory=list)
    error: GraphError | None = None

    @property
    def refused(self) -> bool:
        """Whether it ran but took none of the made-up rows: nothing speaks against the graph, and nothing for it."""
        return not self.passed and isinstance(self.error, RowBroken)


def try_signatures(
    graph: LoadedGraph, signatures: Mapping[str, Signature], features: tuple[Feature, ...] = (), wanted: int = WANTED
) -> dict[str, Trial]:
    """Run each signature on made-up rows until `wanted` kinds pass, or all fail. `features` are what the graph
    parses."""
    return {name: _try(graph, signature, features, wanted) for name, signature in signatures.items()}


def _try(graph: LoadedGraph, signature: Signature, features: tuple[Feature, ...], wanted: int) -> Trial:
    trial = Trial()
    for kind in islice(kinds(signature, features), TRIES):
        if trial.passed and not kind.values_differ(trial.passed[-1]):
            continue
        if trial.passed and kind.free != trial.passed[0].free:
            break
        try:
            call(graph, signature, make_up(signature, kind, signature.batch or 2))
        except GraphError as error:
            # A fault of the graph says more than a refusal of the rows.
            if trial.error is None or isinstance(trial.error, RowBroken):
                trial.error = error
        else:
            trial.passed.append(kind)
            if len(trial.passed) == wanted:
                break
    return trial


def call(graph: LoadedGraph, signature: Signature, rows: Rows) -> dict[str, Array]:
    """One run of rows as they are."""
    with watched_run():
        return graph.call(signature.name, {**rows.arrays, **rows.static})
