"""Walks a cache file from end to end, as a program of its own: a damaged file may kill whoever reads it.

Run as `python -m rowserve.cache.walk FOLDER [beside [pages]]`. Exit status 0 when all pages are as they should be, 1
when they are damaged, 2 when they could not be read; a line on stderr says why. With `beside` others may use the file
meanwhile: a read transaction holds the pages still, all priorities are the lowest, and then the records' checksums are
read too, a few at a time; what stands on stdout is {"checked": how many, "damaged": [their keys in hex]}. With `pages`
nothing but the pages is read, and somebody waits for it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import sys
from pathlib import Path
from typing import Any

from rowserve.cache.errors import CacheError, CacheRefused
from rowserve.cache.meta_page import Damaged, Meta, check_metas, parse_meta
from rowserve.cache.pages import check

BESIDE = "beside"
PAGES = "pages"
DATA = "data.mdb"
PAGE = 4096
KEY_BYTES = 32
PREFIX = b"\xff" * 7
NUMBERED = (b"m", b"p", b"t", b"z")
DOCUMENT = b"a"
ABOUT = PREFIX + DOCUMENT + b"\0about"
MOST_NAMED = 10_000
# The call has no name in the C library: its number, and "idle" for this process.
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
IOPRIO_WHO_PROCESS, IOPRIO_IDLE = 1, 3 << 13


class Keys:
    """Looks whether keys have a form that a cache writes; which counts only in a file that says that it is one."""

    def __init__(self) -> None:
        self.ours = self.strange = False

    def look(self, key: bytes) -> bool:
        """Never objects at once: the file says what it is only near its end."""
        if len(key) != KEY_BYTES or key.startswith(PREFIX):
            self.ours |= key == ABOUT
            kind = key[len(PREFIX) : len(PREFIX) + 1]
            numbered = kind in NUMBERED and len(key) == len(PREFIX) + 9
            self.strange |= not key.startswith(PREFIX) or not (kind == DOCUMENT or numbered)
        return True


def metas(data: mmap.mmap, name: object) -> tuple[Meta, Meta]:
    """Both meta pages. Raises CacheRefused."""
    first = parse_meta(data[:PAGE], name)
    return first, parse_meta(data[first.page : first.page + PAGE], name)


def check_file(path: Path, transaction: int | None = None) -> None:
    """Check all pages of the newest state, or that of one transaction. Raises Damaged, CacheRefused, OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        both = metas(data, path)
        if transaction is None:
            check_metas(*both)
            meta = max(both, key=lambda each: each.transaction)
        else:
            meta = both[transaction & 1]
            if meta.transaction != transaction:
                raise LookupError
        keys = Keys()
        check(data, meta, keys.look)
        if keys.ours and keys.strange:
            raise Damaged("a key does not belong where it stands")


def check_beside(folder: str) -> None:
    """The same while others write. Raises as `check_file`, and lmdb.Error."""
    import lmdb

    env: Any = lmdb.open(folder, readonly=True, create=False, map_size=0, readahead=False)
    try:
        for _ in range(100):
            with env.begin() as txn:
                try:
                    return check_file(Path(folder, DATA), txn.id())
                except LookupError:
                    continue  # two commits came between the transaction and its page
        raise OSError(f"{folder} changes too fast")
    finally:
        env.close()


def check_records(folder: str) -> dict[str, Any]:
    """Checksums, in short transactions."""
    from rowserve.cache.admin import verify
    from rowserve.cache.lmdb_store import LmdbStore

    store = LmdbStore(Path(folder))
    try:
        found = verify(store)
    finally:
        store.close()
    if ABOUT.hex() in found.damaged:
        raise Damaged("what the file says of itself does not check")
    return {"checked": found.checked, "damaged": found.damaged[:MOST_NAMED]}


def be_patient() -> None:
    """Last in line for processor and disk; a system that does not know of it goes without."""
    os.nice(19)
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)


def main() -> None:
    """The program."""
    import lmdb

    folder, beside = sys.argv[1], BESIDE in sys.argv[2:]
    try:
        if PAGES in sys.argv[2:]:
            check_beside(folder)
        elif beside:
            be_patient()
            check_beside(folder)
            print(json.dumps(check_records(folder)))  # noqa: T201  what the program is for
        else:
            check_file(Path(folder, DATA))
    except (Damaged, CacheRefused) as error:
        sys.exit(str(error))
    except (CacheError, OSError, ValueError, lmdb.Error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  as sys.exit prints the other
        sys.exit(2)


if __name__ == "__main__":  # pragma: no cover  the test of it is another process
    main()
