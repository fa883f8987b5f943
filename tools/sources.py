"""What `warm` can read: folders and globs of pictures, files of paths, of JSON rows, of arrays.

`Sources` is made on the main thread and looks at no more than what there is; `groups` is read on the reader thread.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from rowserve.handlers.ndjson import Mode
from rowserve.tools.array_files import NpyFile, NpzFile
from rowserve.tools.groups import Group, Lines, Paths
from rowserve.tools.line_reader import DescriptorLines
from rowserve.tools.progress import count_lines

PICTURES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"])
ROWS = frozenset([".jsonl", ".ndjson"])
PATHS_AT_ONCE = 32


class BadPlace(ValueError):
    """A source that cannot be read; the message names it and says why."""


class Source(Protocol):
    """One of the sources."""

    def groups(self) -> Iterator[Group]:
        """All it has."""

    def count(self) -> int | None:
        """How many rows that is, where it can be told quickly."""


@dataclass(frozen=True)
class PictureFolder:
    """All pictures in a folder and below, in the order of their names."""

    folder: Path

    def groups(self) -> Iterator[Group]:
        """See Source."""
        for paths in batched_paths(self._paths()):
            yield Paths(paths)

    def count(self) -> int:
        """See Source."""
        return sum(1 for _ in self._paths())

    def _paths(self) -> Iterator[str]:
        for parent, folders, names in os.walk(self.folder):
            folders.sort()
            for name in sorted(names):
                if is_picture(name):
                    yield os.path.join(parent, name)  # noqa: PTH118 - it may hold bytes that are no Unicode


@dataclass(frozen=True)
class PictureFile:
    """One picture."""

    path: Path

    def groups(self) -> Iterator[Group]:
        """See Source."""
        yield Paths([str(self.path)])

    def count(self) -> int:
        """See Source."""
        return 1


@dataclass(frozen=True)
class LineFile:
    """A file with a row, or a picture's path, on each line."""

    path: Path
    mode: Mode

    def groups(self) -> Iterator[Group]:
        """See Source."""
        with self.path.open("rb", buffering=0) as file:
            for lines in DescriptorLines(file.fileno()).groups():
                yield Lines(lines, self.mode)

    def count(self) -> int | None:
        """See Source."""
        return count_lines(self.path)


class Sources:
    """Several sources, one after the other. Raises BadPlace for the first that is not there."""

    def __init__(self, places: Sequence[str]) -> None:
        self._sources: list[Source] = [source for place in places for source in sources_at(place)]

    def groups(self) -> Iterator[Group]:
        """All they have."""
        for source in self._sources:
            yield from source.groups()

    def count(self) -> int | None:
        """How many rows that is, None where one of them cannot tell."""
        total = 0
        for source in self._sources:
            count = source.count()
            if count is None:
                return None
            total += count
        return total


def sources_at(place: str) -> Iterator[Source]:
    """A path's source, or those of all the paths that a glob finds."""
    if os.path.lexists(place):
        yield source_at(Path(place))
        return
    found = sorted(glob.glob(place, recursive=True)) if glob.has_magic(place) else []  # noqa: PTH207
    if not found:
        what = "nothing fits this glob" if glob.has_magic(place) else "no such file or folder"
        raise BadPlace(f"{place}: {what}")
    for path in found:
        # Of a glob such as photos/**, whose matches are folders and what is in them alike, each picture once.
        if not Path(path).is_dir():
            yield source_at(Path(path))


def source_at(path: Path) -> Source:
    """The source that a path stands for, told by what it is called."""
    if path.is_dir():
        return PictureFolder(path)
    if not path.is_file():
        raise BadPlace(f"{path}: no such file or folder" if not path.exists() else f"{path}: not a file")
    try:
        with path.open("rb"):
            pass
        suffix = path.suffix.lower()
        if suffix == ".npy":
            return NpyFile(path)
        if suffix == ".npz":
            return NpzFile(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadPlace(f"{path}: {why}") from None
    if is_picture(path.name):
        return PictureFile(path)
    return LineFile(path, Mode.JSON if suffix in ROWS else Mode.PATHS)


def is_picture(name: str) -> bool:
    """Whether a file's name ends like a picture's."""
    return os.path.splitext(name)[1].lower() in PICTURES  # noqa: PTH122


def batched_paths(paths: Iterator[str]) -> Iterator[Sequence[str]]:
    """Paths, some at a time."""
    while some := list(islice(paths, PATHS_AT_ONCE)):
        yield some
