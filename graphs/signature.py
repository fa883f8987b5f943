"""What a model takes and gives: tensor specs and signatures, without TensorFlow.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

DEFAULT_SIGNATURE = "serving_default"
# None for an unknown rank, None inside for a free dimension.
Shape = tuple[int | None, ...] | None
STRING = "string"
NUMERIC = frozenset(
    """bool uint8 uint16 uint32 uint64 int8 int16 int32 int64
    float16 bfloat16 float32 float64 complex64 complex128""".split()  # noqa: SIM905
)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype for a TensorFlow dtype name; strings are objects (of `bytes`).

    Raises ValueError for a dtype that has no row form (resource, variant, quantised).
    """
    if name == STRING:
        return np.dtype(object)
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    if name not in NUMERIC:
        raise ValueError(f"dtype {name} cannot be served")
    return np.dtype(name)


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a signature.

    `shape` is the shape of ONE row (the leading dimension is left out) when `batched`, else the whole shape.
    None in a shape is a free dimension; None for the whole shape is an unknown rank.
    `dtype` is TensorFlow's name ("float32", "string", "bfloat16").
    """

    name: str
    dtype: str
    shape: Shape
    batched: bool = True

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype its numpy arrays have inside the program."""
        return numpy_dtype(self.dtype)

    @cached_property
    def row_bytes(self) -> int | None:
        """Bytes of one row, or None where the shape is free or the elements are strings."""
        if self.dtype == STRING or self.shape is None or None in self.shape:
            return None
        size = self.numpy_dtype.itemsize
        for dimension in self.shape:
            size *= dimension or 0
        return size

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a row (or, unbatched, a tensor) of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "dtype": self.dtype, "shape": shape, "batched": self.batched}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_plain`."""
        shape = None if plain["shape"] is None else tuple(plain["shape"])
        return cls(plain["name"], plain["dtype"], shape, plain["batched"])


@dataclass(frozen=True)
class Signature:
    """TensorFlow's SignatureDef: named inputs and outputs, each sorted by name.

    `alone` is why its requests run one at a time and uncached, or "" when rows may share batches and cache.
    `batch` is a fixed leading dimension, None when it is free.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method: str = ""
    batch: int | None = None
    alone: str = ""

    @cached_property
    def row_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that carry the batch dimension."""
        return tuple(spec for spec in self.inputs if spec.batched)

    @cached_property
    def static_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs without it."""
        return tuple(spec for spec in self.inputs if not spec.batched)

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name."""
        return next((spec for spec in self.outputs if spec.name == name), None)

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "name": self.name,
            "inputs": [spec.to_plain() for spec in self.inputs],
            "outputs": [spec.to_plain() for spec in self.outputs],
            "method": self.method,
            "batch": self.batch,
            "alone": self.alone,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Signature:
        """The inverse of `to_plain`."""
        return cls(
            plain["name"],
            tuple(TensorSpec.from_plain(spec) for spec in plain["inputs"]),
            tuple(TensorSpec.from_plain(spec) for spec in plain["outputs"]),
            plain["method"],
            plain["batch"],
            plain["alone"],
        )
