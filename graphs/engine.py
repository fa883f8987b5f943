"""TensorFlow, imported late and quietly, and its errors told apart by whose fault they are.

Any thread; the first import takes seconds, so callers import inside the function that needs a graph. This and
the files that open, freeze or inspect graphs are the only ones that touch TensorFlow.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from rowserve.graphs.errors import GraphError, GraphFailed, RowBroken, one_line
from rowserve.graphs.execution import schedulable_cores
from rowserve.graphs.load_settings import LoadSettings

# A user's own setting wins. The first two drop TensorFlow's banners and leave its errors. By the third each session
# has threads of its own, as many as suit its graph; else the first session of the process decides for all.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "AUTOGRAPH_VERBOSITY": "0", "TF_OVERRIDE_GLOBAL_THREADPOOL": "1"}
BANNER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} .*(port|cpu_feature_guard|cuda\w*)\.cc:"
)
# tensorflow.errors codes that speak of the values fed: invalid argument, out of range, unimplemented, data loss.
ROW_CODES = frozenset({3, 11, 12, 15})


IMPORTING = threading.Lock()


def tensorflow() -> Any:
    """The module, its banners kept off stderr."""
    with IMPORTING:  # models load side by side, and only one thread at a time may hold stderr back
        return _tensorflow()


@cache
def _tensorflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings(), without_banners():
        warnings.simplefilter("ignore")
        import tensorflow as tf

        # The first look for devices complains too, on every machine without a GPU.
        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")
    return tf


@contextmanager
def without_banners() -> Iterator[None]:
    """Hold back what is written to stderr, and let it through afterwards without TensorFlow's banners.

    Some are written while its libraries load, before any of its settings is read, so only the descriptor can
    stop them.
    """
    sys.stderr.flush()
    try:
        real = os.dup(2)
    except OSError:  # a daemon without stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            held.seek(0)
            with os.fdopen(real, "wb", closefd=True) as stderr:
                stderr.writelines(line for line in held if not BANNER.match(line))


def session_config(settings: LoadSettings) -> Any:
    """Threads as set; devices a graph was pinned to on another machine give way to those that are here.

    Threads that have nothing to do sleep: those that spin take the core that the reactor needs, and a small graph waits
    for them longer than it computes.
    """
    config = tensorflow().compat.v1.ConfigProto(
        intra_op_parallelism_threads=settings.op_threads,
        inter_op_parallelism_threads=settings.inter_op_threads or schedulable_cores(),
        allow_soft_placement=True,
    )
    config.experimental.disable_thread_spinning = True
    return config


def graph_error(error: Exception) -> GraphError:
    """The error of a run as ours: RowBroken when the values fed are to blame, else GraphFailed."""
    if isinstance(error, GraphError):
        return error
    if getattr(error, "error_code", None) in ROW_CODES:
        return RowBroken(one_line(error))
    return GraphFailed(f"{type(error).__name__}: {one_line(error)}")
