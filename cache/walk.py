"""Walks an LMDB file from end to end, as a program of its own: a damaged file may kill whoever reads it.

Run as `python walk.py FOLDER`: exit status 0 when every key was there and in order, else a line on stderr that says
what was wrong.
"""

from __future__ import annotations

import sys
from typing import Any


def fault(folder: str) -> str:
    """What is wrong with the file, "" when nothing is."""
    import lmdb

    try:
        env: Any = lmdb.open(folder, readonly=True, lock=False, create=False, map_size=0)
        with env.begin(buffers=True) as txn, txn.cursor() as cursor:
            count, before = 0, b""
            for place, value in cursor.iternext():
                key = bytes(place)
                if count and key <= before:
                    return "keys out of order"
                len(value)
                count, before = count + 1, key
            expected = txn.stat()["entries"]
    except lmdb.Error as error:
        return str(error)
    return "" if count == expected else f"{count} keys where {expected} belong"


def main() -> None:
    """The program."""
    found = fault(sys.argv[1])
    if found:
        sys.exit(found)


if __name__ == "__main__":  # pragma: no cover  the test of it is another process
    main()
