"""What a request of `bench` looks like on the wire, for each protocol. Main thread.

All requests of a run have the same number of rows, so what stands before the rows is made once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np
import orjson

from rowserve.handlers.open_inference_datatypes import datatype_of
from rowserve.tools.bench_rows import Input, Piece
from rowserve.tools.options import Refused

Form = Callable[[Sequence[Piece]], bytes]
"""Rows to a whole request, head and body."""
Headers = Mapping[str, str]
NO_WISH: Headers = {}
THROW_AWAY: Headers = {"Rowserve-Throw-Away": "1"}
"""The server forgets rows that were sent so by itself, also when this process is killed."""
BOUNDARY = "rowserve-bench-5d1c7a90f2"


def address(server: str) -> tuple[str, int, str]:
    """Host, port and the Host header of a server's URL. Raises Refused for another kind of URL."""
    parts = urlsplit(server)
    try:
        port = 80 if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path not in ("", "/") or parts.query:
        raise Refused(f"--server {server}: write it as http://HOST:PORT")
    return parts.hostname, port, parts.netloc.rpartition("@")[2]


def binary_form(host: str, target: str, inputs: Sequence[Input], rows: int, wishes: Headers = NO_WISH) -> Form:
    """The Open Inference Protocol with binary tensors, asked for and given."""
    sizes = [rows * math.prod(size or 0 for size in each.shape) * each.numpy_dtype.itemsize for each in inputs]
    document = {
        "inputs": [
            {
                "name": each.name,
                "shape": [rows, *each.shape],
                "datatype": datatype_of(each.dtype),
                "parameters": {"binary_data_size": size},
            }
            for each, size in zip(inputs, sizes, strict=True)
        ],
        "parameters": {"binary_data_output": True},
    }
    told = orjson.dumps(document)
    headers = {"Inference-Header-Content-Length": str(len(told)), "Content-Type": "application/octet-stream"}
    front = head(host, target, {**headers, **wishes}, len(told) + sum(sizes)) + told
    if rows == 1:
        return lambda pieces: b"".join((front, *pieces[0]))
    return lambda pieces: b"".join([front, *(part for column in zip(*pieces, strict=True) for part in column)])


def json_form(host: str, target: str, wishes: Headers = NO_WISH) -> Form:
    """Lines of JSON."""
    headers = {"Content-Type": "application/x-ndjson", **wishes}

    def form(pieces: Sequence[Piece]) -> bytes:
        body = b"".join([piece[0] + b"\n" for piece in pieces])
        return head(host, target, headers, len(body)) + body

    return form


def upload_form(host: str, target: str, field: str = "file", wishes: Headers = NO_WISH) -> Form:
    """A multipart form with a file for each row."""
    part = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="picture"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    end = f"--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **wishes}

    def form(pieces: Sequence[Piece]) -> bytes:
        body = b"".join([*(part + piece[0] + b"\r\n" for piece in pieces), end])
        return head(host, target, headers, len(body)) + body

    return form


def head(host: str, target: str, headers: dict[str, str], length: int) -> bytes:
    """A POST's head."""
    fields = {"Host": host, **headers, "Content-Length": str(length)}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {told}" for name, told in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def json_pieces(pieces: Sequence[Piece], inputs: Sequence[Input]) -> list[Piece]:
    """Made-up rows as lines of JSON."""
    lines: list[Piece] = []
    for piece in pieces:
        row = {
            each.name: np.frombuffer(part, each.numpy_dtype).reshape([size or 0 for size in each.shape]).tolist()
            for each, part in zip(inputs, piece, strict=True)
        }
        lines.append((orjson.dumps(row if len(row) > 1 else next(iter(row.values()))),))
    return lines
