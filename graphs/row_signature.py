"""A signature as rows: which dimension of which inputs counts them. Pure, safe on any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rowserve.graphs.errors import UnknownOutput
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.signature import Shape, Signature, TensorSpec

# The dtype and the whole shape.
Tensor = tuple[str, Shape]


def row_signature(
    name: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], settings: LoadSettings, method: str = ""
) -> Signature:
    """The signature as the model declares it: its leading dimensions are taken at their word until the self-test."""
    batched, batch, alone = leading_dimension(
        {key: shape for key, (_, shape) in inputs.items()}, set(settings.static_inputs)
    )
    wanted = set(settings.outputs) & outputs.keys() or outputs.keys()
    kept = {key: outputs[key] for key in sorted(wanted)}
    without = [key for key, (_, shape) in kept.items() if shape == ()]
    if without and not alone:
        alone = f"output {without[0]} has no leading dimension"
    return Signature(
        name,
        tuple(_spec(key, tensor, batched=key in batched) for key, tensor in sorted(inputs.items())),
        tuple(_spec(key, tensor, batched=not alone) for key, tensor in kept.items()),
        method,
        batch,
        alone,
    )


def _spec(name: str, tensor: Tensor, *, batched: bool) -> TensorSpec:
    dtype, shape = tensor
    return TensorSpec(name, dtype, shape[1:] if batched and shape is not None else shape, batched)


def leading_dimension(shapes: dict[str, Shape], static: set[str]) -> tuple[set[str], int | None, str]:
    """(inputs that carry it, its fixed size or None, why the signature has none or "")."""
    rows = {key: shape for key, shape in shapes.items() if key not in static}
    if not rows:
        return set(), None, "it has no input with a leading dimension"
    free = {key for key, shape in rows.items() if shape is None or (shape and shape[0] is None)}
    fixed = {key: shape[0] for key, shape in rows.items() if shape and shape[0] is not None}
    scalars = sorted(set(rows) - free - set(fixed))
    sizes = set(fixed.values())
    hint = "name it in static_inputs to share batches and the cache"
    if scalars and (free or fixed):
        return free or set(), None, f"input {scalars[0]} has no leading dimension ({hint})"
    if scalars:
        return set(), None, "it has no input with a leading dimension"
    if free and fixed:
        return (
            free,
            None,
            f"the leading dimension of input {min(fixed)} is fixed and that of {min(free)} is not ({hint})",
        )
    if len(sizes) > 1 or sizes == {0}:
        return set(), None, "the leading dimensions of its inputs differ"
    return set(rows), next(iter(sizes), None), ""


def check_names(path: Path, signatures: Iterable[Signature], settings: LoadSettings) -> None:
    """Raise UnknownOutput where the settings name what no signature has."""
    signatures = list(signatures)
    for kind, wanted, there in (
        ("output", settings.outputs, {spec.name for sig in signatures for spec in sig.outputs}),
        ("static input", settings.static_inputs, {spec.name for sig in signatures for spec in sig.inputs}),
    ):
        missing = sorted(set(wanted) - there)
        if missing:
            raise UnknownOutput(
                f"{path}: no signature has the {kind} {missing[0]}; there is: {', '.join(sorted(there))}"
            )
