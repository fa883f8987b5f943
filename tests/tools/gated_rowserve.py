"""`rowserve` with arithmetic for a model; its graph stands still while the file ROWSERVE_TEST_GATE names is there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rowserve.graphs.rows import Rows
from rowserve.server import assembly
from rowserve.tools.cli import main
from tests.doubles import ArithmeticSession


class GatedSession(ArithmeticSession):
    """Doubles rows, once the gate is open."""

    def run(self, signature: str, rows: Rows) -> dict[str, Any]:
        while Path(os.environ["ROWSERVE_TEST_GATE"]).exists():
            time.sleep(0.005)
        return super().run(signature, rows)


def load_session(source: Any, settings: Any, known: Any) -> Any:
    return GatedSession()


assembly.load_session = load_session

if __name__ == "__main__":
    main()
