"""OpenVINO, imported late, and its errors as ours. Any thread.

This and the two files that open and run its models are the only ones that touch it.
"""

from __future__ import annotations

import re
import sys
import threading
from functools import cache
from typing import Any

from rowserve.graphs.errors import CannotLoad, GraphError, GraphFailed, RowBroken, one_line

MISSING = "the engine openvino is not installed: pip install 'rowserve[openvino]'"
# The package that reports each import of OpenVINO to its makers.
REPORTER = "openvino_telemetry"
NO_RULE = re.compile(r"No conversion rule found for operations: (.+?)(?: To facilitate|\n|$)", re.DOTALL)
FAILED_OP = re.compile(r"^-- (\w+) with a message", re.MULTILINE)
# What the engine's own code says around the sentence that says what is wrong.
PLACES = re.compile(r"Exception from \S+:|Check '.*?' failed at \S+:|While \w+ing node '[^']*'[^:]*:?")
MEMORY = ("bad_alloc", "bad allocation", "memory")
IMPORTING = threading.Lock()


def openvino() -> Any:
    """The module. Nothing is reported to anybody. Raises CannotLoad where it is not installed."""
    with IMPORTING:  # models load side by side
        return _openvino()


@cache
def _openvino() -> Any:
    absent = REPORTER not in sys.modules
    if absent:
        sys.modules[REPORTER] = None  # type: ignore[assignment]  # an import then fails, and OpenVINO goes without
    try:
        import openvino
    except ImportError as error:
        raise CannotLoad(MISSING if error.name == "openvino" else f"{MISSING} ({one_line(error)})") from None
    finally:
        if absent:
            del sys.modules[REPORTER]
    return openvino


def why_not_converted(error: Exception) -> str:
    """What of a model cannot be taken over, in a few words."""
    text = str(error)
    ops = [op for found in NO_RULE.findall(text) for op in re.split(r",\s*", found.strip())] + FAILED_OP.findall(text)
    if ops:
        return f"it has no rule for {', '.join(sorted(set(ops)))}"
    return plain(error)


def plain(error: Exception) -> str:
    """What it says, without the places in OpenVINO's own code."""
    return one_line(PLACES.sub("", str(error)))


def run_error(error: Exception) -> GraphError:
    """The error of a run as ours. OpenVINO does not tell whose fault it is; no row is to blame for want of memory."""
    if isinstance(error, GraphError):
        return error
    if isinstance(error, MemoryError) or any(word in str(error) for word in MEMORY):
        return GraphFailed(f"OpenVINO: {one_line(error)}")
    return RowBroken(plain(error))
