"""Requests to try, as `rowserve serve` prints them: one a signature, as any shell takes them. Any thread.

None names a file that may not be there: without photos, a picture of one pixel is made by the line itself, and so is a
row that is too long to print.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from urllib.parse import quote

from rowserve.graphs.signature import Signature
from rowserve.handlers.example_row import is_short, one, row_of_ones, sizes
from rowserve.handlers.items import ModelFace
from rowserve.handlers.problem import Problem

PIXEL = "R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="


def examples(face: ModelFace, url: str, photos: tuple[str, ...]) -> Iterator[str]:
    """A line for each signature."""
    for signature in face.signatures.values():
        query = "" if signature == default(face) else f"?signature={quote(signature.name)}"
        decoder = face.decoders.get(signature.name)
        if decoder is not None and not isinstance(decoder, Problem):
            yield upload(f"{url}/images/{face.name}{query}", photos)
        else:
            yield send_row(f"{url}/rows/{face.name}{query}", signature)


def default(face: ModelFace) -> Signature | None:
    """The signature that needs no name."""
    try:
        return face.signature()
    except Problem:
        return None


def upload(url: str, photos: tuple[str, ...]) -> str:
    """Uploads the photos, or a pixel."""
    if not photos:
        return f"echo {PIXEL} | base64 -d | curl -F 'file=@-;filename=pixel.gif' {shlex.quote(url)}"
    parts = " ".join(f"-F {shlex.quote(f'file=@{photo}')}" for photo in photos)
    return f"curl {parts} {shlex.quote(url)}"


def send_row(url: str, signature: Signature) -> str:
    """Sends a row of ones."""
    if is_short(signature):
        return f"curl --data-binary {shlex.quote(row_of_ones(signature))} {shlex.quote(url)}"
    program = f"import json; print(json.dumps({expression(signature)}))"
    return f"python3 -c {shlex.quote(program)} | curl --data-binary @- {shlex.quote(url)}"


def expression(signature: Signature) -> str:
    """The same row as Python makes it: of few characters, however many its elements."""
    texts = {}
    for spec in signature.inputs:
        text = repr(one(spec))
        for size in reversed(sizes(spec)):
            text = f"[{text}] * {size}"
        texts[spec.name] = text
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "{" + ", ".join(f"{name!r}: {text}" for name, text in texts.items()) + "}"
