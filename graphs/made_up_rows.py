"""Rows made up for a signature, to try a graph on: the same ones every time.

Pure, safe on any thread. No single guess suits every model (a lookup refuses large numbers, a parser refuses
words), so there are several kinds, the likeliest first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from rowserve.graphs.made_up_examples import Feature, Value, encode
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import STRING, Signature, TensorSpec

REALS = ("unit", "normal", "pixels")
WHOLES = ("small", "binary", "zero")
EXAMPLES = "examples"
TEXTS = ("words", "numbers", "picture", "empty")
FREE = (7, 32, 128, 224, 1)
# Elements of one row, where its shape is free: more would take longer to make than to run.
MOST_NUMBERS, MOST_TEXTS = 1 << 20, 1 << 10
WORDS = (b"a", b"cat sat", b"the quick brown fox", b"", b"3.5", b"zebra crossing ahead", b"Caf\xc3\xa9 au lait", b"x y")


@dataclass(frozen=True)
class Kind:
    """A way to make values up.

    `free` is what free dimensions become; an unknown rank is one dimension of it, or none for 1. `features` are those
    of serialised examples, where `texts` says so.
    """

    reals: str = REALS[0]
    wholes: str = WHOLES[0]
    texts: str = TEXTS[0]
    free: int = FREE[0]
    features: tuple[Feature, ...] = ()

    def values_differ(self, other: Kind) -> bool:
        """Whether the two differ in more than their shapes."""
        return (self.reals, self.wholes, self.texts) != (other.reals, other.wholes, other.texts)


def kinds(signature: Signature, features: tuple[Feature, ...] = ()) -> Iterator[Kind]:
    """The kinds worth trying for a signature, the likeliest first; those that would make the same rows are left out."""
    types = {spec.dtype for spec in signature.inputs}
    if STRING in types:
        types |= {feature.dtype for feature in features}
    free = any(spec.shape is None or None in spec.shape for spec in signature.inputs)
    reals = REALS if any(_is_real(dtype) for dtype in types) else REALS[:1]
    wholes = WHOLES if any(_is_whole(dtype) for dtype in types) else WHOLES[:1]
    texts = ((EXAMPLES,) if features else ()) + TEXTS if STRING in types else TEXTS[:1]
    sizes = [size for size in FREE if free and _affordable(signature, size)] or [min(FREE) if free else FREE[0]]
    for size, text, whole, real in product(sizes, texts, wholes, reals):
        yield Kind(real, whole, text, size, features if text == EXAMPLES else ())


def _affordable(signature: Signature, size: int) -> bool:
    """Whether a row with free dimensions of that size is still small."""
    return all(
        prod(_shape(spec, Kind(free=size))) <= (MOST_TEXTS if spec.dtype == STRING else MOST_NUMBERS)
        for spec in signature.inputs
    )


def make_up(signature: Signature, kind: Kind, count: int, seed: int = 0) -> Rows:
    """`count` different rows. Static inputs are the same for every count and seed."""
    arrays = {spec.name: _values(spec, kind, (count, *_shape(spec, kind)), seed) for spec in signature.row_inputs}
    static = {spec.name: _values(spec, kind, _shape(spec, kind), 0) for spec in signature.static_inputs}
    return Rows(arrays, count if arrays else 1, static)


def _is_real(dtype: str) -> bool:
    return "float" in dtype or "complex" in dtype


def _is_whole(dtype: str) -> bool:
    return "int" in dtype


def _shape(spec: TensorSpec, kind: Kind) -> tuple[int, ...]:
    if spec.shape is None:
        return (kind.free,) if kind.free != 1 else ()
    return tuple(kind.free if dimension is None else dimension for dimension in spec.shape)


def _values(spec: TensorSpec, kind: Kind, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.default_rng([zlib.crc32(spec.name.encode()), seed])
    if spec.dtype == STRING:
        return _texts(kind, shape, random)
    if spec.dtype == "bool":
        return random.random(shape) < 0.5
    if _is_whole(spec.dtype):
        return random.integers(0, _top(kind, spec.dtype), shape).astype(spec.numpy_dtype)
    reals: Array = _reals(kind.reals, shape, random)
    if "complex" in spec.dtype:
        reals = reals + 1j * _reals(kind.reals, shape, random)
    if not spec.batched:
        reals = reals + 0.5  # what divides or scales is not nothing
    return reals.astype(spec.numpy_dtype)


def _top(kind: Kind, dtype: str) -> int:
    # Pictures come as bytes; other integers are mostly indices into something.
    return {"small": 256 if dtype == "uint8" else 50, "binary": 2, "zero": 1}[kind.wholes]


def _reals(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if kind == "normal":
        return random.normal(size=shape)
    return random.random(shape) * (255.0 if kind == "pixels" else 1.0)


def _texts(kind: Kind, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    texts = np.empty(shape, dtype=object)
    flat: Any = texts.reshape(-1)
    for index in range(flat.size):
        flat[index] = _text(kind, index, random)
    return texts


def _text(kind: Kind, index: int, random: np.random.Generator) -> bytes:
    if kind.texts == EXAMPLES:
        return encode({feature.name: _feature(feature, kind, index, random) for feature in kind.features})
    if kind.texts == "words":
        # Rows differ in their number of words, or padding to the longest would not show.
        again, word = divmod(index, len(WORDS))
        return WORDS[word] + (b" %d" % again if again else b"")
    if kind.texts == "numbers":
        return b"%d" % random.integers(0, 50)
    if kind.texts == "picture":
        return picture(random.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    return b""


def _feature(feature: Feature, kind: Kind, index: int, random: np.random.Generator) -> list[Value]:
    # Lengths differ from row to row where they may, or padding to the longest would not show.
    length = 1 + index % 3 if feature.length is None else feature.length
    if feature.dtype == STRING:
        return [WORDS[(index + at) % len(WORDS)] for at in range(length)]
    if _is_whole(feature.dtype):
        return [int(value) for value in random.integers(0, _top(kind, feature.dtype), length)]
    return [float(value) for value in _reals(kind.reals, (length,), random)]


def picture(pixels: Array) -> bytes:
    """A PNG of [height, width, 3] uint8."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
