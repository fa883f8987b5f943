"""A model without a graph: its signature is served by the real pipeline over a real cache, and numpy answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from rowserve.cache.opening import open_cache
from rowserve.cache.row_cache import RowCache
from rowserve.cache.writer import Limits
from rowserve.graphs.description import ModelDescription
from rowserve.graphs.rows import Array, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.graphs.thread import GraphThread
from rowserve.handlers.items import ModelFace
from rowserve.server.batcher import Batcher
from rowserve.server.metrics import Metrics
from rowserve.server.models import ServedModel, ServedSignature
from rowserve.server.pipeline import RowPipeline
from rowserve.server.row_queue import BatchLimits

GIB = 1 << 30


class NoGraph:
    """Stands where a session is: these benchmarks never miss."""

    def __init__(self, description: ModelDescription) -> None:
        self.description = description

    def run(self, signature: str, rows: Rows) -> dict[str, Array]:
        """Never called."""
        raise AssertionError("a row was missing")

    def close(self) -> None:
        """Nothing to free."""


class MadeUp:
    """Rows of `taken` in, float32 rows of `output_bytes` out; over the cache in `folder`. The reactor lends its clock,
    and does not run.
    """

    def __init__(self, folder: Path, taken: TensorSpec, output_bytes: int, group_rows: int = 4096) -> None:
        self.signature = Signature(
            "serving_default",
            (taken,),
            (TensorSpec("y", "float32", (output_bytes // 4,)),),
        )
        self.cache: RowCache = open_cache(folder, GIB, limits=Limits(group_rows=group_rows))
        about = ModelDescription("f" * 64, {self.signature.name: self.signature}, "v1", frozen=True)
        graph = GraphThread(
            lambda: NoGraph(about), start_thread=lambda run: None, call_in_reactor=lambda call: None, clock=lambda: 0.0
        )
        self.metrics = Metrics()
        self.pipeline = RowPipeline(self.cache, reactor, self.metrics, no_pool)
        served = ServedSignature(self.signature, self.cache, about, enabled=True, ttl=None)
        batcher = Batcher(graph, BatchLimits(), reactor, self.pipeline.computed)
        face = ModelFace("made_up", 1, about.signatures)
        self.model = ServedModel(face, about, {self.signature.name: served}, graph, batcher, self.metrics)

    def fill(self, inputs: Array, outputs: Array) -> None:
        """Keep rows as the pipeline does, and wait until they are in the file."""
        served = self.model.served(self.signature)
        generation = served.generation({})
        for at in range(0, len(inputs), 1024):
            while self.cache.stats.queued_rows > 4096:
                wait_a_moment()
            keys = generation.row_keys(served.inputs.pack({"x": inputs[at : at + 1024]}, len(inputs[at : at + 1024])))
            packed = served.outputs.pack({"y": outputs[at : at + 1024]}, len(keys))
            taken = self.cache.keep(keys, packed, generation)
            assert taken == len(keys)
        while self.cache.stats.queued_rows:
            wait_a_moment()


def no_pool(call: Any, *args: Any) -> Deferred[Any]:
    """Stands where the decode pool is."""
    raise AssertionError("nothing to decode")


def wait_a_moment() -> None:
    """While the writer thread works."""
    time.sleep(0.002)


def flat(size: int) -> TensorSpec:
    """An input x of so many bytes a row."""
    return TensorSpec("x", "uint8", (size,))


def numbered_rows(count: int, width: int, seed: int = 0) -> Array:
    """`count` different uint8 rows."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)
    rows[:, :4] = np.arange(count, dtype=np.uint32)[:, None].view(np.uint8)
    return rows
