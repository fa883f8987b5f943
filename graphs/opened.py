"""A graph that has been opened and has run: what the self-test and the warm-up need of it, whatever the engine.

Graph thread, at load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rowserve.graphs.errors import GraphError
from rowserve.graphs.made_up_rows import make_up
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.self_test import widen
from rowserve.graphs.signature import Shape, Signature
from rowserve.graphs.tolerance import Likeness, likeness
from rowserve.graphs.trial import Trial, call


@dataclass(frozen=True)
class Opened:
    """`signatures` are those that run, as the file declares them; `shapes` the whole shapes of their outputs, by
    signature and name; `trials` what came of running each; `op_threads` the threads of one op. `notes` are for the log.
    """

    path: Path
    graph: LoadedGraph
    signatures: Mapping[str, Signature]
    shapes: Mapping[str, Mapping[str, Shape]]
    trials: Mapping[str, Trial]
    op_threads: int
    notes: tuple[str, ...] = ()

    def alone(self, signature: Signature, reason: str) -> Signature:
        """The signature with requests run one at a time: its outputs are whole tensors, as the file declares them, with
        free dimensions where a real answer does not keep to that."""
        shapes = self.shapes[signature.name]
        outputs = tuple(replace(spec, shape=shapes[spec.name], batched=False) for spec in signature.outputs)
        for kind in self.trials[signature.name].passed:
            answers = call(self.graph, signature, make_up(signature, kind, signature.batch or 2))
            outputs = tuple(widen(spec, answers[spec.name].shape) for spec in outputs)
        return replace(signature, outputs=outputs, alone=reason)


def without_broken(
    signatures: Mapping[str, Signature], trials: Mapping[str, Trial]
) -> tuple[dict[str, Signature], list[str]]:
    """The signatures that run, and a note for each of the others."""
    running = {name for name, trial in trials.items() if trial.passed or trial.refused}
    notes = [
        f"signature {name} is left out: it does not run: {trial.error}"
        for name, trial in trials.items()
        if name not in running
    ]
    return {name: signature for name, signature in signatures.items() if name in running}, notes


def difference(
    one: LoadedGraph, other: LoadedGraph, signatures: Mapping[str, Signature], trials: Mapping[str, Trial]
) -> str:
    """How the answers of the second graph to made-up rows differ from the first one's, or ""."""
    for name, signature in signatures.items():
        for kind in trials[name].passed:
            rows = make_up(signature, kind, signature.batch or 3)
            expected = call(one, signature, rows)
            try:
                found = call(other, signature, rows)
            except GraphError as error:
                return f"signature {name} does not run: {error}"
            for key in expected:
                if likeness(expected[key], found[key]) is Likeness.DIFFERENT:
                    return f"output {key} of signature {name} differs"
    return ""
