"""The two real models: by a bare session, and in the real pipeline on the reactor of this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path
from twisted.internet.defer import Deferred

from benchmarks.side_by_side.bare import tensorflow_engine
from benchmarks.table import Figure
from rowserve.graphs.rows import Array, Rows
from rowserve.handlers.items import Answer, Options
from rowserve.server.assembly import Assembly
from rowserve.server.config import CacheConfig, Config
from rowserve.server.discovery import find
from rowserve.server.models import ServedModel
from rowserve.tools.digits import digits_model
from rowserve.tools.efficientnet import efficientnet_model
from rowserve.tools.run_reactor import ReactorRun, log_to_stderr

MODELS = {
    "digits": digits_model,
    "efficientnet_lite0": lambda: efficientnet_model(user_cache_path("rowserve") / "benchmarks"),
}
SHAPES = {"digits": (8, 8), "efficientnet_lite0": (224, 224, 3)}


def bare_session(name: str) -> Callable[[Array], Array]:
    """The model as its SavedModel's function, variables frozen to constants, in a session: images to probabilities."""
    return tensorflow_engine(MODELS[name]() / "1")


class InProcess:
    """The pipeline of `assembly` with one real model; `rows` makes rows nobody has asked yet."""

    def __init__(self, assembly: Assembly, model: ServedModel, name: str) -> None:
        self.assembly = assembly
        self.model = model
        self.signature = model.face.signature()
        self._name = name
        self._shape = SHAPES[name]
        self._random = np.random.default_rng(1)

    def images(self, count: int) -> Array:
        """Values from 0 to 1, different each time."""
        return self._random.random((count, *self._shape), np.float32)

    def rows(self, count: int) -> Rows:
        """The same as a request has them."""
        return Rows({self.signature.inputs[0].name: self.images(count)}, count)

    async def ask(self, rows: Rows) -> Answer:
        """One request."""
        answer = self.assembly.pipeline.answer(self.model, self.signature, [rows], Options())
        return await answer if isinstance(answer, Deferred) else answer


def in_process(names: Sequence[str], measure: Callable[..., Coroutine[Any, Any, Iterable[Figure]]]) -> Iterator[Figure]:
    """What `measure` finds, given the reactor and an InProcess for each name."""
    log_to_stderr()
    run = ReactorRun()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        assembly = Assembly(run.reactor, Config(cache=CacheConfig(folder=folder)))

        async def work() -> int:
            models = []
            for name in names:
                state = await assembly.add(find(str(MODELS[name]()), None))
                if state.model is None:
                    raise RuntimeError(state.fault)
                models.append(InProcess(assembly, state.model, name))
            found.extend(await measure(run.reactor, *models))
            return 0

        run.run(work)
        assembly.close()
    yield from found


def wait(reactor: Any, seconds: float) -> Deferred[None]:
    """Let the reactor do its work for so long."""
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


def model_folder(name: str) -> Path:
    """Where the model lies, for --models."""
    return MODELS[name]().parent
