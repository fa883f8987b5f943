"""As much of a JSON value as an error shows.

Pure values, safe on any thread. However large a value is, only its beginning is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rowserve.handlers.json_pieces import LongList

SHOWN = 60  # characters of a value that an error shows


def show(value: Any) -> str:
    """A value as JSON, cut."""
    text = ""
    for part in written(value):
        text += part
        if len(text) > SHOWN:
            return text[:SHOWN] + "..."
    return text


def written(value: Any) -> Iterator[str]:
    """A value as JSON, part by part: nobody asks for more than he shows."""
    if isinstance(value, LongList):
        yield str(value)
    elif isinstance(value, str):
        yield json.dumps(value[: SHOWN + 1])
    elif isinstance(value, list):
        yield "["
        for index, element in enumerate(value):
            yield ", " if index else ""
            yield from written(element)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for index, (key, element) in enumerate(value.items()):
            yield f"{', ' if index else ''}{json.dumps(key[: SHOWN + 1])}: "
            yield from written(element)
        yield "}"
    elif isinstance(value, int) and abs(value) > 10**SHOWN:
        yield "a number too long to show"
    else:
        yield json.dumps(value)
