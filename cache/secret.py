"""The secret of this installation: 32 bytes in a file of mode 0600, from which every key hangs.

Blocking file work before the reactor runs. The file appears complete or not at all: it is written under another name
and then linked, so that of two programs that start at once one makes it and both read the same.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from rowserve.cache.errors import SecretRefused
from rowserve.cache.keys import SECRET_BYTES

NAME = "secret"


def read_or_make(folder: Path) -> bytes:
    """The secret of `folder`, made when it has none. Raises SecretRefused, which names the file, and OSError."""
    path = folder / NAME
    try:
        return read(path)
    except FileNotFoundError:
        make(path)
        return read(path)


def make(path: Path) -> None:
    """Link a complete secret to `path`, unless somebody else has been quicker."""
    draft = path.with_name(f".{NAME}-{os.getpid()}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        draft.unlink()


def read(path: Path) -> bytes:
    """The secret in `path`. Raises SecretRefused where it is not a private file of 32 bytes that is ours."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise SecretRefused(f"{path} is a symbolic link, not the secret itself") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretRefused(f"{path} is not a file")
        if status.st_uid != os.geteuid():
            raise SecretRefused(f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} who runs this")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise SecretRefused(f"{path} is open to others (mode {mode:04o}); run: chmod 600 {path}")
        secret = os.read(descriptor, SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(secret) != SECRET_BYTES:
        raise SecretRefused(f"{path} holds {status.st_size} bytes where a secret has {SECRET_BYTES}")
    return secret
