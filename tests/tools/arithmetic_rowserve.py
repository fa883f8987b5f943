"""`rowserve` with a model that does arithmetic in the place of TensorFlow.

It is a real process, with real threads, files and signals, that starts in half a second.

Where ROWSERVE_TEST_BROKEN is set, the model does not load. A model called `endless` never ends its loading.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from rowserve.graphs.errors import CannotLoad
from rowserve.server import assembly
from rowserve.tools.cli import main
from tests.doubles import ArithmeticSession


def load_session(source: Any, settings: Any, known: Any) -> Any:
    if "ROWSERVE_TEST_BROKEN" in os.environ:
        raise CannotLoad(f"{source.path}: broken for a test")
    if source.name == "endless":
        threading.Event().wait()
    return ArithmeticSession()


assembly.load_session = load_session

if __name__ == "__main__":
    main()
