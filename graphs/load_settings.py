"""How a model shall be loaded: what its card and the server's settings say of it.

Pure values, safe on any thread.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rowserve.graphs.execution import TENSORFLOW, schedulable_cores


@dataclass(frozen=True)
class LoadSettings:
    """What changes how a graph is loaded, tested or run.

    `static_inputs`: names of inputs without the batch dimension. `outputs`: the card's narrowing, () for all.
    `allowed_ops`: ops that reach outside the graph and are allowed all the same. `max_rows`: the largest
    batch. `exact`: a row's bytes never depend on its company. `trust`: "rows" overrules a self-test that
    found answers changing. Threads: of one op, and of ops side by side; 0 means all cores, or fewer where they
    are quicker. `precision` is OpenVINO's: "f32", or "bf16" where the processor has it; "" for TensorFlow's.
    """

    static_inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    allowed_ops: tuple[str, ...] = ()
    max_rows: int = 32
    exact: bool = False
    trust: str = ""
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    engine: str = TENSORFLOW
    precision: str = ""

    @property
    def op_threads(self) -> int:
        """Threads of one op, zero resolved: where sums are split, so part of what makes the last bits."""
        return self.intra_op_threads or schedulable_cores()

    def to_bytes(self) -> bytes:
        """The settings in one canonical form, for digests. The order of names is no difference."""
        plain = {key: sorted(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return json.dumps(plain, sort_keys=True).encode()
