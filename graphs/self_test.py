"""Whether rows may share batches and a cache: made-up rows are run alone, in company, in other places and again.

Graph thread, at load. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rowserve.graphs.company import ROWS, Company
from rowserve.graphs.errors import GraphError
from rowserve.graphs.made_up_rows import Kind
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.graphs.tolerance import Likeness


@dataclass(frozen=True)
class Verdict:
    """What was found of one signature.

    `misfit`: why its outputs cannot be cut into rows, or "". `changing`: why a row's answer is not the row's alone, or
    "". `counting`: why it is so only in batches of one size, or "". `outputs`: as declared, but wider where an answer
    showed another shape. `notes`: sentences for the log.
    """

    outputs: tuple[TensorSpec, ...]
    misfit: str = ""
    changing: str = ""
    counting: str = ""
    notes: tuple[str, ...] = ()


def examine(graph: LoadedGraph, signature: Signature, kinds: Sequence[Kind]) -> Verdict:
    """Test a signature that declares a leading dimension on each kind of rows that it takes."""
    verdict = Verdict(signature.outputs)
    size = min(3, signature.batch or 3)
    # Two sizes tell whether an output follows the rows; a fixed one tells less.
    counts = (3, 2) if signature.batch is None else (signature.batch,)
    for kind in kinds:
        company = Company(graph, signature, kind)
        try:
            misfit = next(filter(None, map(company.misfit, counts)), "")
            if misfit:
                return replace(verdict, misfit=misfit)
            verdict = replace(verdict, outputs=_widened(verdict.outputs, company, size))
            changing = company.changing(size)
        except GraphError as error:
            changing = f"it does not run on any number of rows: {error}"
        if changing:
            return replace(verdict, changing=changing)
        if signature.batch is None and not verdict.counting:
            verdict = replace(verdict, counting=_counting(company, size))
        notes = (
            f"signature {signature.name}: output {name} of a row differs in its last bits between batches of different"
            " sizes; exact mode makes them the same"
            for name in company.rounded
        )
        verdict = replace(verdict, notes=tuple(dict.fromkeys([*verdict.notes, *notes])))
    return verdict


def _counting(company: Company, size: int) -> str:
    """How a row's answer changes with the number of rows that run with it, or ""."""
    try:
        first = company.ask(range(size))
        for places in ([0], [1], [0, 1], range(ROWS)):
            shared = [place for place in places if place < size]
            name = company.unlike(first, company.ask(places), shared, range(len(shared)), Likeness.ROUNDING)
            if name:
                return f"output {name} of a row changes with the number of rows beside it"
    except GraphError as error:
        return f"it does not run on any number of rows: {error}"
    return ""


def _widened(outputs: tuple[TensorSpec, ...], company: Company, size: int) -> tuple[TensorSpec, ...]:
    """The outputs with free dimensions where a real answer did not keep to those declared."""
    answers = company.ask(range(size))
    return tuple(widen(spec, answers[spec.name].shape[1:]) for spec in outputs)


def widen(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """`spec`, or as much of it as is true of an answer of this shape."""
    if spec.accepts(shape):
        return spec
    if spec.shape is None or len(shape) != len(spec.shape):
        return replace(spec, shape=None)
    return replace(spec, shape=tuple(w if w == h else None for w, h in zip(spec.shape, shape, strict=True)))
