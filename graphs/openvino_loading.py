"""A SavedModel or an ONNX file in OpenVINO: look, convert each signature, try.

Graph thread, at load; blocking. TensorFlow is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import CannotLoad
from rowserve.graphs.inspection import inspect, ops_behind
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.model_files import is_onnx
from rowserve.graphs.onnx_model import read_onnx
from rowserve.graphs.opened import Opened, without_broken
from rowserve.graphs.openvino_engine import openvino, plain, why_not_converted
from rowserve.graphs.openvino_graph import OpenVinoGraph, Ports
from rowserve.graphs.row_signature import check_names, row_signature
from rowserve.graphs.saved_model import SavedModel, output_shapes, read_saved_model
from rowserve.graphs.saved_model_messages import SavedModelMessage
from rowserve.graphs.signature import DEFAULT_SIGNATURE, Shape, Signature
from rowserve.graphs.trial import WANTED, try_signatures

INSTEAD = 'engine = "tensorflow" in its card runs it'
DTYPES = {
    "boolean": "bool",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
}
# Ops that change a variable: after conversion the variable would stay as it is.
CHANGING = (
    *("Assign", "ResourceApply", "ResourceScatter", "ResourceStridedSliceAssign", "ScatterNdUpdate", "ScatterNdAdd"),
    *(f"Scatter{what}" for what in ("Update", "Add", "Sub", "Mul", "Div", "Min", "Max", "NdSub")),
)
CHECKING = frozenset({"Assert", "CheckNumerics", "CheckNumericsV2"})


@dataclass(frozen=True)
class Converted:
    """The signatures that could be converted; `shapes` as in Opened."""

    models: Mapping[str, tuple[Any, Ports]]
    signatures: Mapping[str, Signature]
    shapes: Mapping[str, Mapping[str, Shape]]
    notes: tuple[str, ...]


def open_with_openvino(path: Path, settings: LoadSettings, known: ModelDescription | None) -> Opened:
    """The model in that folder, ready to run. Raises CannotLoad, which says what to do instead."""
    openvino()
    found = _from_onnx(path, settings) if is_onnx(path) else _from_saved_model(path, settings, known)
    try:
        graph = OpenVinoGraph(found.models, found.signatures, settings)
    except Exception as error:  # noqa: BLE001  (OpenVINO raises RuntimeError for everything)
        raise CannotLoad(f"{path}: OpenVINO cannot compile it: {plain(error)}") from None
    trials = try_signatures(graph, found.signatures, wanted=1 if known else WANTED)
    signatures, broken = without_broken(found.signatures, trials)
    if not signatures:
        graph.close()
        raise CannotLoad(f"{path}: OpenVINO does not run it: {'; '.join(broken)}")
    return Opened(path, graph, signatures, found.shapes, trials, settings.op_threads, (*found.notes, *broken))


def _from_onnx(path: Path, settings: LoadSettings) -> Converted:
    there = read_onnx(path)
    try:
        model = _convert("onnx", there.file)
    except CannotLoad as error:
        raise CannotLoad(f"{there.file}: {error}") from None
    inputs, outputs = _named(model.inputs, there.inputs), _named(model.outputs, there.outputs)
    signature = row_signature(DEFAULT_SIGNATURE, _facts(model.inputs, inputs), _facts(model.outputs, outputs), settings)
    check_names(path, [signature], settings)
    why = _unservable(signature)
    if why:
        raise CannotLoad(f"{path}: {why}")
    shapes = {name: _facts(model.outputs, outputs)[name][1] for name in outputs}
    wanted = {spec.name: outputs[spec.name] for spec in signature.outputs}
    return Converted(
        {signature.name: (model, Ports(inputs, wanted))}, {signature.name: signature}, {signature.name: shapes}, ()
    )


def _from_saved_model(path: Path, settings: LoadSettings, known: ModelDescription | None) -> Converted:
    model = read_saved_model(path, settings)
    inspect(model, settings.allowed_ops)
    models: dict[str, tuple[Any, Ports]] = {}
    left_out: list[str] = []
    notes = list(model.notes)
    for name, signature in model.signatures.items():
        if known is not None and name not in known.signatures:
            continue
        ops = ops_behind(model.meta_graph, model.outputs[name].values())
        why = _unservable(signature) or _changing(ops)
        if not why:
            try:
                models[name] = _signature(model, signature)
            except CannotLoad as error:
                why = str(error)
        if why:
            left_out.append(f"signature {name}: {why}")
        elif ops & CHECKING:
            checks = ", ".join(sorted(ops & CHECKING))
            notes.append(f"signature {name} runs without its checks ({checks}), which OpenVINO leaves out")
    if not models:
        raise CannotLoad(f"{path}: {'; '.join(left_out)}; {INSTEAD}")
    notes += [f"{each}; it is left out ({INSTEAD})" for each in left_out]
    signatures = {name: model.signatures[name] for name in models}
    return Converted(models, signatures, output_shapes(replace(model, signatures=signatures)), tuple(notes))


def _signature(model: SavedModel, signature: Signature) -> tuple[Any, Ports]:
    """One signature's graph and where its tensors are in it. Raises CannotLoad."""
    with _alone(model, signature.name) as folder:
        converted = _convert("tf", folder)
    inputs = _named(converted.inputs, [spec.name for spec in signature.inputs])
    tensors = model.outputs[signature.name]
    # A tensor with two names in the signature keeps one of them, also one that the card leaves out.
    every = model.meta_graph.signature_def[signature.name].outputs
    where = {every[name].name: at for name, at in _named(converted.outputs, every).items()}
    outputs = {name: where[tensor] for name, tensor in tensors.items() if tensor in where}
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise CannotLoad(f"its output {spec.name} cannot be converted")
    for specs, there, ports in (
        (signature.inputs, inputs, converted.inputs),
        (signature.outputs, outputs, converted.outputs),
    ):
        for spec in specs:
            if spec.name in there and _dtype(ports[there[spec.name]]) != spec.dtype:
                raise CannotLoad(f"its tensor {spec.name} is converted to {_dtype(ports[there[spec.name]])}")
    return converted, Ports(inputs, outputs)


@contextmanager
def _alone(model: SavedModel, name: str) -> Iterator[Path]:
    """The SavedModel with one signature under the one name that OpenVINO reads, and nothing that was not looked at."""
    with TemporaryDirectory(prefix="rowserve-") as made:
        folder = Path(made)
        message = SavedModelMessage(saved_model_schema_version=1)
        meta = message.meta_graphs.add()
        meta.CopyFrom(model.meta_graph)
        meta.signature_def.clear()
        meta.signature_def[DEFAULT_SIGNATURE].CopyFrom(model.meta_graph.signature_def[name])
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        for part in ("variables", "assets"):
            if (model.path / part).is_dir():
                (folder / part).symlink_to((model.path / part).resolve())
        yield folder


def _convert(form: str, file: Path) -> Any:
    """The model by the reader of that form and no other, whatever the file holds. Raises CannotLoad."""
    from openvino.frontend import FrontEndManager

    try:
        reader = FrontEndManager().load_by_framework(form)
        return reader.convert(reader.load(str(file)))
    except Exception as error:  # noqa: BLE001  (each reader raises errors of its own)
        raise CannotLoad(f"OpenVINO cannot convert it: {why_not_converted(error)}") from None


def _named(ports: Any, names: Any) -> dict[str, int]:
    """Where the tensors of these names are."""
    return {name: at for name in names for at, port in enumerate(ports) if name in port.get_names()}


def _facts(ports: Any, where: Mapping[str, int]) -> dict[str, tuple[str, Shape]]:
    """The dtype and the whole shape of each."""
    return {name: (_dtype(ports[at]), _shape(ports[at])) for name, at in where.items()}


def _dtype(port: Any) -> str:
    name = port.get_element_type().get_type_name()
    return DTYPES.get(name, str(name))


def _shape(port: Any) -> Shape:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in shape)


def _unservable(signature: Signature) -> str:
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.dtype not in DTYPES.values():
                return f"{kind} {spec.name} is {spec.dtype}, which the engine openvino does not carry"
    return ""


def _changing(ops: frozenset[str]) -> str:
    found = sorted(op for op in ops if op.startswith(CHANGING))
    return f"it changes its variables ({', '.join(found)}), which OpenVINO takes for constants" if found else ""
