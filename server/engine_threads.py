"""Loads a model so that its engine's own threads give way to ours: what is known is told before more is computed.

Those threads hold every core for as long as the system lets them, and a row from the cache would wait for its turn
behind them. A thread inherits how patient it is (nice(2), on Linux a matter of each thread), and on which cores it may
run, from the thread that starts it. So a model is loaded on a thread that has what its engine's threads shall have, and
then belongs to the graph thread, which has waited meanwhile and stays what it was: while that has the interpreter, all
others wait for it.

Graph thread.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
# A core that is wanted by both goes three parts in four to a thread of ours. At 10 it is nine in ten, but a lone row of
# a large model took a tenth more time.
PATIENCE = 5


def load_patiently(load: Callable[[], T], begin: Callable[[], None]) -> T:
    """What `load` returns or raises, on a thread that calls `begin` first. Waits for it."""
    loaded: Future[T] = Future()

    def run() -> None:
        try:
            begin()
            if sys.platform == "linux":
                with suppress(OSError):  # a sandbox that does not allow it
                    os.nice(PATIENCE)
            loaded.set_result(load())
        except BaseException as error:  # noqa: BLE001  raised again by who waits
            loaded.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return loaded.result()
