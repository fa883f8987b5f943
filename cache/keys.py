"""Keys of rows, uploads and generations: keyed BLAKE3-256 over length-framed fields.

Pure, safe on any thread. No part of a key is ever taken from a client: every field comes from the model, the settings
or the row itself, and all of them hang from the secret of this installation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from rowserve.graphs.rows import Array, Buffer, little_endian
from rowserve.graphs.signature import STRING, Signature, TensorSpec

FORMAT = 1
"""Raised when a key or a packed row comes to mean something else: older rows are then never found again."""

SECRET_BYTES = 32
KEY_BYTES = 32
TAG_BYTES = 4

GENERATION_CONTEXT = "rowserve 2026 row cache: generation"
ROW_CONTEXT = "rowserve 2026 row cache: row"
ALIAS_CONTEXT = "rowserve 2026 row cache: alias of an upload"
NAME_CONTEXT = "rowserve 2026 row cache: name of a generation"
FAMILY_CONTEXT = "rowserve 2026 row cache: name of a family of generations"
MARK_CONTEXT = "rowserve 2026 row cache: which secret a file belongs to"

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
I64 = struct.Struct("<q")


def frame(*fields: Buffer) -> bytes:
    """The fields, each behind its length: no two lists of fields give the same bytes."""
    return b"".join(part for content in fields for part in (U64.pack(len(content)), content))


def derive(key: bytes, context: str) -> bytes:
    """A 32-byte key for one purpose."""
    return blake3(key, derive_key_context=context).digest()


def secret_mark(secret: bytes) -> bytes:
    """Tells whether a file belongs to `secret`, and nothing else about it."""
    return derive(secret, MARK_CONTEXT)[:16]


@dataclass(frozen=True, slots=True)
class Field:
    """One framed part of a generation: what it is, of what, and its bytes."""

    label: str
    name: str
    content: bytes

    @property
    def framed(self) -> bytes:
        """As it goes into the key."""
        return frame(self.label.encode(), self.name.encode(), self.content)

    @property
    def digest(self) -> str:
        """A short name for the content, for people who compare two explanations."""
        return blake3(self.content).hexdigest(8)


@dataclass(frozen=True, slots=True)
class Generation:
    """The cache's name space of one (fingerprint, signature, outputs, execution settings, static inputs, tenant).

    `digest` (32 bytes) names it and may be shown. `tag` (4 bytes) stands beside each row, so that a purge finds them;
    generations that differ only in their static inputs share it. The keys made here are 32 bytes each.
    """

    digest: bytes
    tag: bytes
    fields: tuple[Field, ...]
    _row: bytes = field(repr=False)
    _alias: bytes = field(repr=False)

    def row_keys(self, packed: Sequence[Buffer]) -> list[bytes]:
        """The key of each row, over the inputs as `RowLayout` packs them."""
        key = self._row
        return [blake3(row, key=key).digest() for row in packed]

    def alias_key(self, upload: Buffer, decoder_identity: bytes) -> bytes:
        """The key under which an upload's row key stands: file bytes, picture settings and decoding code."""
        hasher = blake3(frame(decoder_identity), key=self._alias)
        return hasher.update(upload).digest()


def generation(
    secret: bytes,
    *,
    fingerprint: str,
    signature: Signature,
    static: Mapping[str, Array],
    execution: Mapping[str, str],
    tenant: bytes = b"",
) -> Generation:
    """The generation of rows answered by this content, signature, static inputs and settings, for this tenant."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes where {SECRET_BYTES} belong")
    fields = (
        Field("format", "", U32.pack(FORMAT)),
        Field("tenant", "", tenant),
        Field("fingerprint", "", fingerprint.encode()),
        Field("signature", "", signature.name.encode()),
        *(Field("input", spec.name, spec_bytes(spec)) for spec in by_name(signature.inputs)),
        *(Field("output", spec.name, spec_bytes(spec)) for spec in by_name(signature.outputs)),
        *(Field("static", name, array_content(static[name])) for name in sorted(static)),
        *(Field("execution", name, execution[name].encode()) for name in sorted(execution)),
    )
    root = digest_of(fields, derive(secret, GENERATION_CONTEXT))
    family = digest_of([part for part in fields if part.label != "static"], derive(secret, FAMILY_CONTEXT))
    return Generation(
        derive(root, NAME_CONTEXT),
        family[:TAG_BYTES],
        fields,
        derive(root, ROW_CONTEXT),
        derive(root, ALIAS_CONTEXT),
    )


def digest_of(fields: Sequence[Field], key: bytes) -> bytes:
    """One digest for all fields, in their order."""
    return blake3(U64.pack(len(fields)) + b"".join(part.framed for part in fields), key=key).digest()


def by_name(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """In the order in which rows are packed."""
    return sorted(specs, key=lambda spec: spec.name)


def spec_bytes(spec: TensorSpec) -> bytes:
    """A tensor's dtype, whether it carries the batch dimension, and its shape; free dimensions are -1."""
    shape = b"any" if spec.shape is None else dimensions(-1 if size is None else size for size in spec.shape)
    return frame(spec.dtype.encode(), b"row" if spec.batched else b"static", shape)


def dimensions(shape: Iterable[int]) -> bytes:
    """A shape, 8 bytes a dimension."""
    return b"".join(I64.pack(size) for size in shape)


def array_content(array: Array) -> bytes:
    """An array's dtype, shape and little-endian C-order bytes; strings each behind its length."""
    array = np.asarray(array)
    if array.dtype == object:
        dtype, content = STRING, frame(*array.flat)
    else:
        dtype, content = array.dtype.name, little_endian(array).tobytes()
    return frame(dtype.encode(), dimensions(array.shape), content)
