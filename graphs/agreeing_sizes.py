"""The batch sizes at which a row's answer is the same within tolerance, for a graph that answers by the number of rows.

Graph thread, at load. No TensorFlow. At a size that counts, neither company nor place matters.
"""

from __future__ import annotations

from collections.abc import Sequence

from rowserve.graphs.company import Answers, Company
from rowserve.graphs.errors import GraphError
from rowserve.graphs.exact_sizes import candidates, choose
from rowserve.graphs.made_up_rows import Kind
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature
from rowserve.graphs.tolerance import Likeness, likeness

# More rows at once gain little, and take long to try.
MOST = 64


def agreeing_sizes(graph: LoadedGraph, signature: Signature, kinds: Sequence[Kind], max_rows: int) -> tuple[int, ...]:
    """The sizes to run, ascending; () where at every size something besides the number of rows matters."""
    companies = [Company(graph, signature, kind) for kind in kinds]
    groups: list[dict[int, list[Answers]]] = []
    for size in candidates(min(max_rows, MOST)):
        answers = _answers(companies, size)
        if not answers:
            continue
        for group in groups:
            if all(_agree(answers, others) for others in group.values()):
                group[size] = answers
                break
        else:
            groups.append({size: answers})
    sizes = [list(group) for group in groups]
    # Rows of another shape may find other sizes alike; within one size nothing but the row matters.
    one_shape = all(spec.row_bytes is not None for spec in signature.row_inputs)
    return choose([group for group in sizes if len(group) > 1] or sizes, one_shape=one_shape)


def _answers(companies: Sequence[Company], size: int) -> list[Answers]:
    """Every row's answer at this size; [] where it does not run so, or where company or place matters."""
    found: list[Answers] = []
    try:
        for company in companies:
            if company.misfit(size) or company.changing(size):
                return []
            found += company.rows_at(size)
    except GraphError:
        return []
    return found


def _agree(ones: Sequence[Answers], others: Sequence[Answers]) -> bool:
    return all(
        likeness(one[name], other[name]) is not Likeness.DIFFERENT
        for one, other in zip(ones, others, strict=True)
        for name in one
    )
