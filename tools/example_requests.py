"""Requests to try, as `rowserve serve` prints them: one a signature, as a shell takes them. Any thread."""

from __future__ import annotations

from collections.abc import Iterator

from rowserve.graphs.signature import Signature
from rowserve.handlers.items import ModelFace
from rowserve.handlers.problem import Problem

SHOWN_ELEMENTS = 16


def examples(face: ModelFace, url: str, photos: tuple[str, ...]) -> Iterator[str]:
    """Requests to try, as a shell takes them."""
    for signature in face.signatures.values():
        query = "" if signature == default(face) else f"?signature={signature.name}"
        decoder = face.decoders.get(signature.name)
        if decoder is not None and not isinstance(decoder, Problem):
            parts = " ".join(f"-F file=@{photo}" for photo in photos or ("picture.jpg",))
            yield f"curl {parts} {url}/images/{face.name}{query}"
        else:
            yield f"curl --data-binary {example_row(signature)} {url}/rows/{face.name}{query}"


def default(face: ModelFace) -> Signature | None:
    """The signature that needs no name."""
    try:
        return face.signature()
    except Problem:
        return None


def example_row(signature: Signature) -> str:
    """A row of ones, where it is small enough to read."""
    values: dict[str, str] = {}
    for spec in signature.inputs:
        shape = [size or 1 for size in spec.shape or ()]
        elements = 1
        for size in shape:
            elements *= size
        if elements > SHOWN_ELEMENTS:
            return "@rows.jsonl"
        text = '"text"' if spec.dtype == "string" else "true" if spec.dtype == "bool" else "1"
        for size in reversed(shape):
            text = "[" + ",".join([text] * size) + "]"
        values[spec.name] = text
    if len(values) == 1:
        return f"'{next(iter(values.values()))}'"
    return "'{" + ",".join(f'"{name}":{text}' for name, text in values.items()) + "}'"
