"""What is known of a loaded model, complete enough to compute cache keys in a process without the engine.

Pure values, safe on any thread. A description is worked out once, at the first load, and remembered beside
the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from rowserve.graphs.execution import cpu, engine_version, exact_facts, schedulable_cores, sizes_setting
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.signature import Signature

# Raise it when loading or the self-test comes to other findings for the same model, or the document below
# changes.
CODE_VERSION = 4
CONTEXT = "rowserve model description, format 1"


@dataclass(frozen=True)
class ModelDescription:
    """A model as the rest of the program sees it.

    `loader` is "v1", "v2 frozen", "v2 function" or "openvino". `sizes` holds, by signature, the batch sizes that may
    run, ascending: in exact mode of all that share batches, in fast mode of those whose answers change with the number
    of rows. `execution` goes into every key. `notes` are findings for the log, a sentence each. `op_threads`: the
    threads of one op, 0 where nobody chose. `folded`: whether arithmetic has gone into weights.
    """

    fingerprint: str
    signatures: Mapping[str, Signature]
    loader: str
    frozen: bool
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    execution: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    op_threads: int = 0
    folded: bool = False

    def execution_of(self, signature: str) -> Mapping[str, str]:
        """The execution settings that belong into the keys of that signature's rows.

        Where its answers change with the number of rows, the least of its sizes says which answers they are: sizes
        that agree with it give the same.
        """
        if signature not in self.sizes or sizes_setting(signature) in self.execution:
            return self.execution
        return {**self.execution, "rows at once": f"as {min(self.sizes[signature])}"}

    def to_json(self) -> bytes:
        """As a small document."""
        plain = {
            "fingerprint": self.fingerprint,
            "signatures": [signature.to_plain() for signature in self.signatures.values()],
            "loader": self.loader,
            "frozen": self.frozen,
            "folded": self.folded,
            "op_threads": self.op_threads,
            "sizes": {name: list(sizes) for name, sizes in self.sizes.items()},
            "execution": dict(self.execution),
            "notes": list(self.notes),
        }
        return json.dumps(plain, sort_keys=True).encode()

    @classmethod
    def from_json(cls, document: bytes) -> ModelDescription:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            plain = json.loads(document)
            signatures = [Signature.from_plain(each) for each in plain["signatures"]]
            return cls(
                plain["fingerprint"],
                {signature.name: signature for signature in signatures},
                plain["loader"],
                plain["frozen"],
                {name: tuple(sizes) for name, sizes in plain["sizes"].items()},
                plain["execution"],
                tuple(plain["notes"]),
                plain["op_threads"],
                plain["folded"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a model description: {error!r}") from None


def description_name(fingerprint: str, settings: LoadSettings) -> bytes:
    """32 bytes under which a description is remembered: the same only for the same model, settings, code,
    engine and machine, as threads are chosen for its cores.
    """
    if settings.exact:
        facts = exact_facts(settings.engine, settings.op_threads)
    else:
        facts = {settings.engine: engine_version(settings.engine), "cpu": cpu(), "cores": str(schedulable_cores())}
    identity = [CODE_VERSION, fingerprint, settings.to_bytes().decode(), sorted(facts.items())]
    return blake3(json.dumps(identity).encode(), derive_key_context=CONTEXT).digest()
