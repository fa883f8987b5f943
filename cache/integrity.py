"""Whether a cache folder may be used: who else has it, whether its file is whole, what is done with one that is not.

Blocking, before the reactor runs. Everything here reads with plain reads or in a child process, because LMDB maps the
file and dies where it is shorter than it says.

    FOLDER/lock        flock: shared by who uses the cache, exclusive to check it and to set it aside
    FOLDER/rows/       data.mdb and lock.mdb, always moved together
    FOLDER/rows/clean  what data.mdb looked like when its last user let go of it
    FOLDER/rows/walked  its time is when all pages of data.mdb were last looked at
    FOLDER/rows/damaged  who used it found it so, in one line: the next who has it alone sets it aside
    FOLDER/rows.bad-*  the last one set aside
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rowserve.cache import walk
from rowserve.cache.errors import CacheRefused, WalkEnded
from rowserve.cache.meta_page import Damaged, Meta, check_metas, parse_meta

LOCK = "lock"
ROWS = "rows"
DATA = "data.mdb"
CLEAN = "clean"
WALKED = "walked"
MARK = "damaged"
BAD = "rows.bad-"

TRUST_SECONDS = 7 * 86400.0
UNREAD = 2  # the walk's exit status
WALK_SECONDS = 300.0
WALK = ("-P", "-m", "rowserve.cache.walk")
OF_DAMAGE = {signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
"""Signals by which a file ends who reads it; others come from people, and from a system that stops a whole service."""

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


def read_meta(path: Path, alone: bool = True) -> tuple[Meta, int] | None:
    """The newer meta page of a data file, and the file's size; None of an empty file, which LMDB fills.

    Only who has it `alone` can tell whether the two pages agree. Raises CacheRefused, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        first = os.pread(descriptor, 4096, 0)
        if not first:
            return None
        meta = parse_meta(first, path)
        other = parse_meta(os.pread(descriptor, 4096, meta.page), path)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if alone:
        try:
            check_metas(meta, other)
        except Damaged as damage:
            raise CacheRefused(f"{path} is damaged: {damage}") from None
    return max(meta, other, key=lambda each: each.transaction), size


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


def note_walked(rows: Path) -> None:
    """All pages of the file have been looked at, and are good. A folder that cannot be written goes without."""
    try:
        (rows / WALKED).touch(mode=0o600)
    except OSError:
        pass


def walked_lately(rows: Path, clock: Callable[[], float] = time.time) -> bool:
    """Whether a clean end may still be believed: it says that nothing went wrong, not that nothing is."""
    try:
        return 0 <= clock() - (rows / WALKED).stat().st_mtime < TRUST_SECONDS
    except OSError:
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


def leave_mark(rows: Path, why: str) -> None:
    """Have the next who has the folder alone set it aside. A folder that cannot be written goes without."""
    try:
        (rows / MARK).write_text(f"{why}\n")
    except OSError:
        pass


def mark_left(rows: Path) -> str:
    """What somebody who used the file found wrong with it, or ""."""
    try:
        return (rows / MARK).read_text(errors="replace").strip() or "found damaged"
    except OSError:
        return ""


def walk_command(rows: Path, *words: str) -> list[str]:
    """How another process is told to walk the file."""
    return [sys.executable, *WALK, os.fspath(rows), *words]


def walked(rows: Path, status: int, said: str) -> None:
    """Note what came of a walk: its exit status and its last words. Raises CacheRefused, WalkEnded."""
    if status < 0 and -status not in OF_DAMAGE:
        raise WalkEnded(f"the process that looked at {rows / DATA} was ended by signal {-status}")
    if status < 0:
        raise CacheRefused(f"{rows / DATA} is damaged: reading it ends with signal {-status}")
    if status:
        lines = said.strip().splitlines() or ["no reason given"]
        raise CacheRefused(f"{rows / DATA} is damaged: {lines[-1]}")
    note_walked(rows)


def walk_in_child(rows: Path, seconds: float = WALK_SECONDS, beside: bool = False) -> None:
    """Check all pages in another process, while others use the file or not. Raises CacheRefused, WalkEnded."""
    command = walk_command(rows, *([walk.BESIDE] if beside else []))
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise CacheRefused(f"{rows / DATA} could not be read within {seconds:.0f} s") from None
    walked(rows, done.returncode, done.stderr.decode(errors="replace"))


def check(rows: Path, alone: bool, clock: Callable[[], float] = time.time) -> Meta | None:
    """The file's meta page; None where there is no file yet. Raises CacheRefused for one that must not be used,
    WalkEnded where it could not be looked at.

    Who has it alone walks it, unless it was let go of in good order and walked in the last days: in the hands of others
    it changes, and they have checked it. A file that is shorter than it says is walked in any case: it may lack free
    pages, and no others.
    """
    why = mark_left(rows)
    if why:
        raise CacheRefused(f"{rows / DATA} was found damaged: {why}")
    try:
        found = read_meta(rows / DATA, alone)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheRefused(f"{rows / DATA} cannot be read: {error.strerror}") from error
    if found is None:
        return None
    meta, size = found
    if size < meta.file_bytes:
        try:
            walk_in_child(rows, beside=not alone)
        except CacheRefused as refused:
            raise CacheRefused(f"{rows / DATA} is truncated: {size} bytes of {meta.file_bytes}") from refused
    elif alone and not (is_clean(rows) and walked_lately(rows, clock)):
        walk_in_child(rows)
    return meta


def set_aside(rows: Path, clock: Callable[[], float] = time.time) -> Path:
    """Move the whole folder out of the way, and drop those moved before. Only alone."""
    for old in rows.parent.glob(f"{BAD}*"):
        shutil.rmtree(old, ignore_errors=True)
    aside = rows.parent / f"{BAD}{int(clock())}"
    rows.rename(aside)
    return aside


def verify_pages(folder: Path) -> str:
    """What is wrong with the pages of the file, the free list included, or "". A child process reads them all, while
    others may use the file; where they are damaged, who next has the folder alone sets it aside. Raises CacheRefused
    where they cannot be read, WalkEnded.
    """
    rows = folder / ROWS
    if not (rows / DATA).exists():
        raise CacheRefused(f"there is no cache in {folder}")
    command = walk_command(rows, walk.BESIDE, walk.PAGES)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        walked(rows, done.returncode, done.stderr.decode(errors="replace"))
    except CacheRefused as refused:
        if done.returncode == UNREAD:
            raise
        leave_mark(rows, str(refused))
        return str(refused)
    return ""
