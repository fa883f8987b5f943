"""A converted model that OpenVINO runs: arrays in, arrays out. Graph thread only, once loaded.

A graph whose number of rows is free is a fifth slower than one made for a number. So a graph with work to do is made
twice more: for one row, and for pieces of a few, which cost no more a row than all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from rowserve.graphs.errors import RowBroken
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.openvino_engine import openvino, run_error
from rowserve.graphs.rows import Array
from rowserve.graphs.signature import Signature

# Integers that OpenVINO calculates in 32 bits, whatever their type says.
CUT = frozenset({"int64", "uint64", "uint32"})
LEAST, MOST = -(1 << 31), (1 << 31) - 1
# A run of one row that is shorter (seconds) gains nothing from a graph made for its size.
LIGHT = 0.0005
# Rows that keep a thread busy: from here on more rows at once are no cheaper.
ROWS_A_THREAD = 4


@dataclass(frozen=True)
class Ports:
    """Where a signature's inputs and outputs are in the model, by name; an input that nothing reads is nowhere."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


class OpenVinoGraph:
    """Signatures, each a model of its own. Feeds are read in place, and answers are copied out before the next run."""

    loader = "openvino"
    frozen = True
    folded = False

    def __init__(
        self, models: Mapping[str, tuple[Any, Ports]], signatures: Mapping[str, Signature], settings: LoadSettings
    ) -> None:
        self._calls = {name: _Call(model, ports, signatures[name], settings) for name, (model, ports) in models.items()}

    def call(self, signature: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """One run, or one for each piece."""
        try:
            return self._calls[signature](arrays)
        except Exception as error:  # noqa: BLE001  (OpenVINO raises RuntimeError for everything; all become ours)
            raise run_error(error) from None

    def settle(self, signature: str, arrays: Mapping[str, Array], *, whole: bool = False) -> int | None:
        """Make it for a few sizes, where a run takes long enough to gain by that."""
        if whole:  # nothing that is measured may choose the sizes that run
            return None
        try:
            return self._calls[signature].settle(arrays)
        except Exception as error:  # noqa: BLE001  (as above)
            raise run_error(error) from None

    def close(self) -> None:
        """Let go of the compiled models; their memory is freed."""
        self._calls.clear()


class _Call:
    """One signature. `_made` holds the runs that were made for a number of rows."""

    def __init__(self, model: Any, ports: Ports, signature: Signature, settings: LoadSettings) -> None:
        self._model = model
        self._ports = ports
        self._signature = signature
        self._settings = settings
        self._cut = [spec.name for spec in signature.inputs if spec.dtype in CUT and spec.name in ports.inputs]
        self._any = _Run(model, ports, settings)
        self._made: dict[int, _Run] = {}
        self._piece = 0

    def settle(self, arrays: Mapping[str, Array]) -> int | None:
        signature, settings = self._signature, self._settings
        fixed = all(spec.row_bytes is not None for spec in (*signature.row_inputs, *signature.outputs))
        if signature.batch is not None or not fixed or self._seconds(arrays) < LIGHT:
            return None
        piece = min(settings.max_rows, 1 << (ROWS_A_THREAD * settings.op_threads - 1).bit_length())
        self._made = {size: _Run(self._sized(size), self._ports, settings) for size in {1, piece}}
        self._piece = piece
        return piece

    def _seconds(self, arrays: Mapping[str, Array]) -> float:
        self(arrays)
        start = perf_counter()
        self(arrays)
        return perf_counter() - start

    def _sized(self, rows: int) -> Any:
        """The model for a number of rows."""
        ov = openvino()
        model = self._model.clone()
        shapes = {}
        for spec in self._signature.row_inputs:
            if spec.name in self._ports.inputs:
                at = self._ports.inputs[spec.name]
                shapes[at] = ov.PartialShape([rows, *list(model.inputs[at].partial_shape)[1:]])
        model.reshape(shapes)
        return model

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        for name in self._cut:
            check_range(name, arrays[name])
        if not self._piece:
            return self._any(arrays)
        count = len(arrays[self._signature.row_inputs[0].name])
        if count <= self._piece:
            return self._made.get(count, self._any)(arrays)
        return self._in_pieces(arrays, count)

    def _in_pieces(self, arrays: Mapping[str, Array], count: int) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for first, last in pieces(count, self._piece):
            cut = {**arrays, **{spec.name: arrays[spec.name][first:last] for spec in self._signature.row_inputs}}
            for name, array in self._made.get(last - first, self._any)(cut).items():
                if not first:
                    found[name] = np.empty((count, *array.shape[1:]), array.dtype)
                found[name][first:last] = array
        return found


class _Run:
    """A compiled model and its one request."""

    def __init__(self, model: Any, ports: Ports, settings: LoadSettings) -> None:
        ov = openvino()
        self._tensor = ov.Tensor
        self._request = ov.Core().compile_model(model, "CPU", properties(settings)).create_infer_request()
        # The wrapper around it looks at each feed a second time, which costs more than a small run.
        self._infer = partial(ov.InferRequest.__base__.infer, self._request)
        self._inputs = list(ports.inputs.items())
        self._outputs = list(ports.outputs.items())

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        request = self._request
        for name, at in self._inputs:
            array = np.asarray(arrays[name])
            if not (array.flags.c_contiguous and array.flags.writeable):
                array = array.copy()  # only such may be fed in place
            request.set_input_tensor(at, self._tensor(array, shared_memory=True))
        self._infer({}, True, False)
        return {name: request.get_output_tensor(at).data.copy() for name, at in self._outputs}


def properties(settings: LoadSettings) -> dict[str, Any]:
    """One request at a time, on as many threads as set; they are not tied to cores, which the reactor needs too."""
    return {
        "INFERENCE_PRECISION_HINT": settings.precision or "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": settings.op_threads,
        "ENABLE_CPU_PINNING": False,
    }


def pieces(count: int, size: int) -> Iterator[tuple[int, int]]:
    """The first row and the one behind the last of each piece."""
    return ((first, min(first + size, count)) for first in range(0, count, size))


def check_range(name: str, array: Array) -> None:
    """Raise RowBroken for integers that would be cut off."""
    if array.size and (array.max() > MOST or array.min() < LEAST):
        raise RowBroken(f"input {name} holds a number beyond 32 bits, which the engine openvino cuts off")
