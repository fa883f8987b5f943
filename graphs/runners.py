"""How a loaded graph is called: arrays in, arrays out, one signature at a time, nothing padded or checked.

Graph thread only, once loaded. What GraphSession needs of an engine is `LoadedGraph`; another engine is
another class here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np

from rowserve.graphs.engine import graph_error, tensorflow
from rowserve.graphs.rows import Array
from rowserve.graphs.signature import Signature

Run = Callable[..., Sequence[Any]]
Timed = TypeVar("Timed", bound=Callable[..., Any])
# The number that names no pool at all.
CALLING_THREAD = -1
ROUNDS = 7


class LoadedGraph(Protocol):
    """A graph that is ready to run.

    `call` takes every input of the signature, whole, and gives every output of it, whole. It raises RowBroken
    or GraphFailed.
    """

    loader: str
    frozen: bool
    folded: bool

    def call(self, signature: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One run."""
        ...

    def settle(self, signature: str, arrays: Mapping[str, Array], *, whole: bool = False) -> int | None:
        """Choose how calls run from now on, by how long these arrays take. Answers stay the same. Gives the most rows
        that will run at once, None where it is as many as are asked for; `whole` asks for that."""
        ...

    def close(self) -> None:
        """Give back what the graph holds; it is not called afterwards."""
        ...


class SessionGraph:
    """Signatures of one graph in one long-lived session. Feeds and fetches are fixed when it is made, so a
    call is short.
    """

    def __init__(
        self,
        session: Any,
        signatures: Mapping[str, Signature],
        inputs: Mapping[str, Mapping[str, str]],
        outputs: Mapping[str, Mapping[str, str]],
        *,
        loader: str,
        frozen: bool,
        folded: bool = False,
    ) -> None:
        self.session = session
        self.loader = loader
        self.frozen = frozen
        self.folded = folded
        self._calls = {
            name: _FixedCall(session, signature, inputs[name], outputs[name]) for name, signature in signatures.items()
        }

    def call(self, signature: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One session call."""
        return self._calls[signature](arrays)

    def settle(self, signature: str, arrays: Mapping[str, Array], *, whole: bool = False) -> int | None:
        """On this thread where that is quicker: small graphs spend their time on handing ops to a pool."""
        self._calls[signature].settle(arrays)
        return None

    def close(self) -> None:
        """Close the session; its variables and tables are freed."""
        self._calls.clear()
        self.session.close()


class _FixedCall:
    """One signature as the session's callable: the feeds in one order, each distinct fetch once."""

    def __init__(
        self, session: Any, signature: Signature, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> None:
        from tensorflow.core.protobuf import config_pb2

        self._feeds = [spec.name for spec in signature.inputs]
        self._outputs = [(spec.name, spec.numpy_dtype) for spec in signature.outputs]
        fed = [inputs[name] for name in self._feeds]
        fetched = [outputs[name] for name, _ in self._outputs]
        distinct = list(dict.fromkeys(fetched))
        self._where = [distinct.index(name) for name in fetched]
        options = config_pb2.CallableOptions(feed=fed, fetch=distinct)
        # Session.make_callable with feeds is Session.run under another name; this is the session's own
        # prepared call.
        self._run: Run = session._make_callable_from_options(options)
        options.run_options.inter_op_thread_pool = CALLING_THREAD
        self._inline: Run = session._make_callable_from_options(options)

    def settle(self, arrays: Mapping[str, Array]) -> None:
        feeds = [arrays[name] for name in self._feeds]
        try:
            self._run = quickest([self._inline, self._run], feeds, perf_counter)
        except Exception as error:  # noqa: BLE001  (as below)
            raise graph_error(error) from None

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._run(*[arrays[name] for name in self._feeds])
        except Exception as error:  # noqa: BLE001  (TensorFlow raises its own and Python's alike; all become ours)
            raise graph_error(error) from None
        return {name: as_array(values[at], dtype) for (name, dtype), at in zip(self._outputs, self._where, strict=True)}


def quickest(runs: Sequence[Timed], feeds: Sequence[Array], clock: Callable[[], float]) -> Timed:
    """The one with the shortest run of several, taken in turns; the first of equals."""
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for index, run in enumerate(runs):
            start = clock()
            run(*feeds)
            best[index] = min(best[index], clock() - start)
    return runs[best.index(min(best))]


class FunctionGraph:
    """Signatures as TensorFlow 2 concrete functions, for graphs that cannot be taken into a session. `keep`
    is what owns them.
    """

    frozen = False
    folded = False
    loader = "v2 function"

    def __init__(self, functions: Mapping[str, Any], signatures: Mapping[str, Signature], keep: Any) -> None:
        self.functions = dict(functions)
        self._signatures = signatures
        self._keep = keep

    def call(self, signature: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One call of the function."""
        tf = tensorflow()
        specs = self._signatures[signature]
        try:
            feeds = {spec.name: tf.constant(arrays[spec.name], dtype=spec.dtype) for spec in specs.inputs}
            values = self.functions[signature](**feeds)
            return {spec.name: as_array(values[spec.name].numpy(), spec.numpy_dtype) for spec in specs.outputs}
        except Exception as error:  # noqa: BLE001  (as above)
            raise graph_error(error) from None

    def settle(self, signature: str, arrays: Mapping[str, Array], *, whole: bool = False) -> int | None:
        """There is one way only."""
        return None

    def close(self) -> None:
        """Let go of the functions and their variables."""
        self.functions.clear()
        self._keep = None


def as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    """A fetched value as an array: TensorFlow gives a scalar as a Python or numpy scalar, a string one as
    bytes.
    """
    if type(value) is np.ndarray:
        return value
    array: Array = np.asarray(value, dtype=dtype)
    return array
