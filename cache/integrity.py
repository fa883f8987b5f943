"""Whether a cache folder may be used: who else has it, whether its file is whole, what is done with one that is not.

Blocking, before the reactor runs. Everything here reads with plain reads or in a child process, because LMDB maps the
file and dies where it is shorter than it says.

    FOLDER/lock        flock: shared by who uses the cache, exclusive to check it and to set it aside
    FOLDER/rows/       data.mdb and lock.mdb, always moved together
    FOLDER/rows/clean  what data.mdb looked like when its last user let go of it
    FOLDER/rows.bad-*  the last one set aside
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rowserve.cache import walk
from rowserve.cache.errors import CacheRefused

LOCK = "lock"
ROWS = "rows"
DATA = "data.mdb"
CLEAN = "clean"
BAD = "rows.bad-"

MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
META_FLAG = 0x08
# Of a meta page: page header (number, padding, flags), then magic, version, address, map size, page size.
META = struct.Struct("<QHHIIIQQI")
LAST_PAGE = struct.Struct("<QQ")
LAST_PAGE_AT = 16 + 24 + 2 * 48
WALK_SECONDS = 300.0

NETWORK_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x5346414F: "AFS",
    0x73757245: "Coda",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x19830326: "BeeGFS",
    0x47504653: "GPFS",
    0x7461636F: "OCFS2",
    0x786F4256: "vboxsf",
}


def file_system_magic(path: Path) -> int:
    """What statfs(2) says the file system of `path` is; 0 where it cannot be asked."""
    buffer = ctypes.create_string_buffer(512)
    statfs = getattr(ctypes.CDLL(None, use_errno=True), "statfs", None)
    if statfs is None or statfs(os.fsencode(path), buffer):
        return 0
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF


def refuse_network(folder: Path, magic: Callable[[Path], int] = file_system_magic) -> None:
    """Raises CacheRefused on a file system whose maps and locks cannot be trusted."""
    name = NETWORK_FILE_SYSTEMS.get(magic(folder))
    if name:
        raise CacheRefused(f"{folder} is on a network file system ({name}); choose a local folder")


@dataclass(frozen=True, slots=True)
class Meta:
    """What a meta page says: the last page that the file should have, and the size of its map."""

    page: int
    map_size: int
    last_page: int
    transaction: int

    @property
    def file_bytes(self) -> int:
        """The least size of the file."""
        return (self.last_page + 1) * self.page


def read_meta(path: Path) -> Meta | None:
    """The newer meta page of a data file; None of an empty file, which LMDB fills. Raises CacheRefused, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        first = os.pread(descriptor, 4096, 0)
        if not first:
            return None
        meta = parse_meta(first, path)
        other = parse_meta(os.pread(descriptor, 4096, meta.page), path)
        newer = max(meta, other, key=lambda each: each.transaction)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if size < newer.file_bytes:
        raise CacheRefused(f"{path} is truncated: {size} bytes of {newer.file_bytes}")
    return newer


def parse_meta(page: bytes, path: Path) -> Meta:
    """One meta page."""
    if len(page) < LAST_PAGE_AT + LAST_PAGE.size:
        raise CacheRefused(f"{path} is truncated: it ends inside its first pages")
    _, _, flags, _, magic, version, _, map_size, size = META.unpack_from(page)
    last, transaction = LAST_PAGE.unpack_from(page, LAST_PAGE_AT)
    if magic != MAGIC or version != DATA_VERSION or not flags & META_FLAG:
        raise CacheRefused(f"{path} is not a cache file")
    if size < 512 or size & (size - 1) or size > 65536 or map_size < (last + 1) * size:
        raise CacheRefused(f"{path} has a damaged first page")
    return Meta(size, map_size, last, transaction)


class Claim:
    """A hold on a cache folder: alone (exclusive) or with others (shared). Let go of by `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.alone = False

    def _lock(self, how: int) -> bool:
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.alone = how == fcntl.LOCK_EX
        return True

    def take(self, wait: Callable[[float], None] = time.sleep, patience: int = 200) -> None:
        """Alone if possible, else with others. Raises CacheRefused when somebody holds it alone for too long."""
        for _ in range(patience):
            if self._lock(fcntl.LOCK_EX) or self._lock(fcntl.LOCK_SH):
                return
            wait(0.05)
        raise CacheRefused(f"{self.folder} is being checked or changed by another program")

    def take_alone(self) -> bool:
        """Whether nobody else has it, and now nobody can. Where it fails, nothing is held any more."""
        return self._lock(fcntl.LOCK_EX)

    def share(self) -> bool:
        """Let others in as well; False in the rare case that somebody took it alone in between."""
        return self._lock(fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go; twice does no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def fingerprint_of(path: Path) -> list[int]:
    """What a file looks like from outside: another writer, or a copy, looks different."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def write_clean(rows: Path) -> None:
    """Note that the file was let go of in good order. Only alone, and after everything was synced."""
    draft = rows / f".{CLEAN}"
    with draft.open("w") as file:
        json.dump(fingerprint_of(rows / DATA), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(rows / CLEAN)


def is_clean(rows: Path) -> bool:
    """Whether the file is as its last user left it."""
    try:
        return bool(json.loads((rows / CLEAN).read_text()) == fingerprint_of(rows / DATA))
    except (OSError, ValueError):
        return False


def drop_clean(rows: Path) -> None:
    """Before the first write: from here on only `write_clean` says that all is well."""
    try:
        (rows / CLEAN).unlink()
    except FileNotFoundError:
        return
    descriptor = os.open(rows, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk_in_child(rows: Path, seconds: float = WALK_SECONDS) -> None:
    """Read the whole index in another process. Raises CacheRefused where that fails, or ends it."""
    command = [sys.executable, walk.__file__, os.fspath(rows)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise CacheRefused(f"{rows / DATA} could not be read within {seconds:.0f} s") from None
    if done.returncode < 0:
        raise CacheRefused(f"{rows / DATA} is damaged: reading it ends with signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CacheRefused(f"{rows / DATA} is damaged: {said[-1]}")


def check(rows: Path, alone: bool) -> Meta | None:
    """The file's meta page; None where there is no file yet. Raises CacheRefused for one that must not be used.

    Only who has it alone walks it: in the hands of others it changes, and they have checked it.
    """
    try:
        meta = read_meta(rows / DATA)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheRefused(f"{rows / DATA} cannot be read: {error.strerror}") from error
    if meta is not None and alone and not is_clean(rows):
        walk_in_child(rows)
    return meta


def set_aside(rows: Path, clock: Callable[[], float] = time.time) -> Path:
    """Move the whole folder out of the way, and drop those moved before. Only alone."""
    for old in rows.parent.glob(f"{BAD}*"):
        shutil.rmtree(old, ignore_errors=True)
    aside = rows.parent / f"{BAD}{int(clock())}"
    rows.rename(aside)
    return aside
