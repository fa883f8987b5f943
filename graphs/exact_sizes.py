"""The batch sizes at which a row's answer has the same bytes, whatever its company: what exact mode may run.

Graph thread, at load. No TensorFlow. Sizes are tried on many rows in two orders; those that disagree with themselves
are out, and those that agree with one another may stand in for one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from blake3 import blake3

from rowserve.graphs.errors import GraphError
from rowserve.graphs.isolation import layout_of
from rowserve.graphs.made_up_rows import Kind, make_up
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.signature import Signature
from rowserve.graphs.trial import call

# Where only one size will do: small enough for a lone row, large enough for a crowd.
ONE_SIZE = 16
SMALL_ROW = 64 * 1024
MANY, FEW = 256, 32


def exact_sizes(graph: LoadedGraph, signature: Signature, kinds: Sequence[Kind], max_rows: int) -> tuple[int, ...]:
    """The sizes to run, ascending; () where not even one keeps a row's bytes."""
    small = sum(spec.row_bytes or 0 for spec in signature.row_inputs) <= SMALL_ROW
    count = max(MANY if small else FEW, max_rows)
    # What rounds otherwise is the kernels, not the values: one kind is enough where a row takes milliseconds.
    kinds = kinds if small else kinds[:1]
    if signature.batch is not None:
        return (signature.batch,) if _digest(graph, signature, kinds, count, signature.batch) else ()
    groups: dict[bytes, list[int]] = {}
    for size in candidates(max_rows):
        digest = _digest(graph, signature, kinds, count, size)
        if digest:
            groups.setdefault(digest, []).append(size)
    # Rows of another shape may find other sizes equivalent; within one size their company never matters.
    one_shape = all(spec.row_bytes is not None for spec in signature.row_inputs)
    return choose(list(groups.values()), one_shape=one_shape)


def candidates(max_rows: int) -> list[int]:
    """The powers of two up to `max_rows`, and itself."""
    return sorted({*(1 << bits for bits in range(max_rows.bit_length())), max_rows})


def choose(groups: Sequence[Sequence[int]], *, one_shape: bool) -> tuple[int, ...]:
    """Of groups of equivalent sizes, the one to run: the one with the largest size, unless that one stands alone."""
    if not groups:
        return ()
    sizes = sorted(size for group in groups for size in group)
    largest = max(groups, key=max)
    if one_shape and len(largest) > 1:
        return tuple(sorted(largest))
    return (max((size for size in sizes if size <= ONE_SIZE), default=sizes[0]),)


def _digest(graph: LoadedGraph, signature: Signature, kinds: Sequence[Kind], count: int, size: int) -> bytes:
    """A digest of the answers of `count` rows at this size; b"" where order or company changes a byte of them."""
    digest = blake3()
    try:
        for kind in kinds:
            rows = make_up(signature, kind, count)
            shuffled = np.random.default_rng(size).permutation(rows.count)
            straight = _packed(graph, signature, rows, np.arange(rows.count), size)
            if straight != _packed(graph, signature, rows, shuffled, size):
                return b""
            for row in straight:
                digest.update(len(row).to_bytes(8, "little") + row)
    except GraphError:
        return b""
    return digest.digest()


def _packed(graph: LoadedGraph, signature: Signature, rows: Rows, order: Array, size: int) -> list[bytes]:
    """Every row's packed answer, in the order of the rows, run `size` at a time in the given order."""
    layout = layout_of(signature.outputs)
    found: list[bytes] = [b""] * rows.count
    for start in range(0, rows.count, size):
        index = order[start : start + size]
        filled = np.concatenate([index, np.repeat(index[:1], size - len(index))])
        arrays = {name: array[filled] for name, array in rows.arrays.items()}
        answers = call(graph, signature, Rows(arrays, size, rows.static))
        for at, packed in zip(index, layout.pack(answers, size), strict=False):
            found[at] = bytes(packed)
    return found
