"""Pictures on this disk, read with every care a path from a stranger needs. Reader thread."""

from __future__ import annotations

import os
import stat

from rowserve.handlers.problem import Problem
from rowserve.server.units import Bytes

TITLE = "Cannot read the file"
STATUS: dict[type[Exception], int] = {FileNotFoundError: 404, NotADirectoryError: 404, PermissionError: 403}


def read_file(path: str, largest: int) -> bytes | Problem:
    """What the file holds. A pipe, a device or a folder is refused, and so is a file larger than that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return Problem(422, f"{shown(path)}: not a file", title=TITLE, reason="no_file")
            content = file.read(largest + 1) if status.st_size <= largest else b""
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return Problem(STATUS.get(type(error), 422), f"{shown(path)}: {why}", title=TITLE, reason="no_file")
    size = max(len(content), status.st_size)
    if size > largest:
        told = f"{shown(path)}: {Bytes.text(size)}; at most {Bytes.text(largest)} are taken"
        return Problem(413, told, title="File too large", reason="too_large")
    return content


def shown(path: str) -> str:
    """A path as far as Unicode can show it, cut."""
    text = path.encode("utf-8", "replace").decode()
    return text if len(text) <= 200 else text[:200] + "..."
