"""What is wrong with a field of a settings file, so that whoever wrote it knows what to write. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$\.(.*)`)?", re.DOTALL)
LEAST_ALIKE = 0.7


def explained(error: Exception, kind: type[msgspec.Struct], page: str) -> str:
    """The error in words; of an unknown field, the one that was meant, and the page that lists all of them."""
    found = UNKNOWN.fullmatch(str(error))
    if found is None:
        return str(error)
    field, table = found[1], found[2] or ""
    meant = meant_by(field, table, list(names(kind)))
    where = f"[{table}] has" if table else "there is"
    return f"{where} no field {field!r}{f'; did you mean {meant}?' if meant else ';'} {page} lists the fields"


def names(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields and tables."""
    for spec in msgspec.structs.fields(kind):
        name = f"{prefix}{spec.name}"
        yield name
        nested: Any = spec.type
        if isinstance(nested, type) and issubclass(nested, msgspec.Struct):
            yield from names(nested, f"{name}.")


def meant_by(field: str, table: str, known: list[str]) -> str:
    """The name most like it, first in the same table, then in any; "" where none is."""
    beside = {name: name for name in known if name.rpartition(".")[0] == table}
    anywhere = {name.rpartition(".")[2]: name for name in known}
    for names_by_word in ({name.rpartition(".")[2]: name for name in beside}, anywhere):
        for word in get_close_matches(field.lower(), names_by_word, 1, LEAST_ALIKE):
            return names_by_word[word]
    return ""
