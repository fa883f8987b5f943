"""Whole tensors by name to rows and back, for the protocols that carry tensors: checked against the signature.

Pure values, safe on any thread. Nothing is copied; a tensor of the wrong dtype is refused, never converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rowserve.graphs.rows import Array, Rows, ShapesDiffer
from rowserve.graphs.signature import STRING, Signature, TensorSpec
from rowserve.handlers.items import Answer, plain_names
from rowserve.handlers.problem import Problem

# A shape of [10**12, 0] costs a client nothing: what bounds all other rows, their bytes, does not bound these.
EMPTY_ROWS = 1024


class TensorFault(Problem):
    """400: tensor `name` does not fit; `kind` is unknown, missing, dtype, shape or rows."""

    def __init__(self, kind: str, name: str, detail: str) -> None:
        super().__init__(400, detail, title="Bad tensor", reason="bad_tensor")
        self.kind = kind
        self.name = name


def rows_of(signature: Signature, tensors: Mapping[str, Array]) -> Rows:
    """Rows out of a tensor for each input: [rows, ...] the batched ones, whole the static ones. Raises TensorFault."""
    named = plain_names(spec.name for spec in signature.inputs)
    for name in tensors:
        if signature.input(name) is None:
            raise TensorFault("unknown", name, f"there is no input {name[:64]!r}; the inputs are: {named}")
    arrays: dict[str, Array] = {}
    static: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.name not in tensors:
            raise TensorFault("missing", spec.name, f"input {spec.name!r} is missing; the inputs are: {named}")
        array = tensors[spec.name]
        check(spec, array)
        (arrays if spec.batched else static)[spec.name] = array
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise TensorFault("rows", next(iter(counts)), f"the inputs have different numbers of rows: {told}")
    for name, count in counts.items():
        if count > EMPTY_ROWS and not any(array.size for array in arrays.values()):
            raise TensorFault("rows", name, f"{count:,} rows without an element; at most {EMPTY_ROWS:,} are taken")
    return Rows(arrays, next(iter(counts.values()), 1), static)


def check(spec: TensorSpec, array: Array) -> None:
    """Raises TensorFault unless the tensor is one of the spec."""
    dtype = STRING if array.dtype == object else array.dtype.name
    if dtype != spec.dtype:
        raise TensorFault("dtype", spec.name, f"input {spec.name!r} takes {spec.dtype}, not {dtype}")
    if spec.batched and not array.ndim:
        raise TensorFault("shape", spec.name, f"input {spec.name!r} takes {shape_text(spec)}, not a scalar")
    if not spec.accepts(array.shape[1:] if spec.batched else array.shape):
        told = f"input {spec.name!r} takes {shape_text(spec)}, not {list(array.shape)}"
        raise TensorFault("shape", spec.name, told)


def shape_text(spec: TensorSpec) -> str:
    """The shape a tensor must have, -1 where any size will do."""
    if spec.shape is None:
        return "any shape with a leading dimension for rows" if spec.batched else "any shape"
    sizes = [-1 if size is None else size for size in spec.shape]
    return f"the shape {[-1, *sizes] if spec.batched else sizes}"


def tensors_of(answer: Answer, names: Sequence[str] | None = None) -> dict[str, Array]:
    """The outputs [rows, ...] in the order of `names` (default: all); whole, where the request ran alone.

    Raises the first bad row's Problem, or Problem 500 where the rows' shapes make no tensor.
    """
    try:
        outputs = answer.stacked(names)
    except ShapesDiffer as error:
        raise Problem(500, f"the rows' outputs do not make one tensor: {error}", reason="ragged") from None
    return outputs if names is None else {name: outputs[name] for name in names}
