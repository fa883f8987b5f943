"""The outputs that an inference request wants: the tensors themselves, or the best classes in them.

Pure values, safe on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rowserve.graphs.rows import Array
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import Answer, Labels
from rowserve.handlers.open_inference_datatypes import NAMES, datatype_of
from rowserve.handlers.open_inference_document import no_json_form
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import tensors_of
from rowserve.handlers.top_classes import top_classes

UNCLASSED = frozenset(("bool", "float16", "bfloat16", "string"))
MOST_CLASSES = 1_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """One output: as bytes or as JSON; where `classes` is not 0, the texts of so many best classes a row."""

    spec: TensorSpec
    binary: bool
    classes: int = 0

    @property
    def datatype(self) -> str:
        """The datatype of what is given."""
        return "BYTES" if self.classes else datatype_of(self.spec.dtype)


def wish(signature: Signature, model: str, name: str, *, binary: bool, classes: int = 0) -> Wish:
    """A wish that can be met. Raises Problem 400."""
    spec = signature.output(name)
    if spec is None:
        there = ", ".join(spec.name for spec in signature.outputs)
        raise invalid(f"unexpected inference output {name[:64]!r} for model {model!r}; the outputs are: {there}")
    if spec.dtype not in NAMES:
        raise invalid(f"output {name!r} is {spec.dtype}, for which this protocol has no datatype")
    if classes:
        if spec.dtype in UNCLASSED:
            told = f"due to unsupported type {datatype_of(spec.dtype)!r}"
            raise invalid(f"class result not available for output {name!r} {told}")
        if classes > MOST_CLASSES:
            raise too_many_classes(name)
    elif not binary and no_json_form(spec.dtype):
        told = "via JSON is not supported. Please use the binary data format for output"
        raise invalid(f"sending {datatype_of(spec.dtype)} data {told} {name!r}")
    return Wish(spec, binary, classes)


def given(answer: Answer, wishes: Sequence[Wish], labels: Labels | None) -> list[Array]:
    """What is given for each wish. Raises the first bad row's Problem, or Problem 400 for too many classes."""
    tensors = tensors_of(answer, [each.spec.name for each in wishes])
    arrays = []
    for each, array in zip(wishes, tensors.values(), strict=True):
        if each.classes:
            in_rows = each.spec.batched or not answer.alone
            names = labels.names if labels is not None and labels.output == each.spec.name else ()
            array = best_classes(each, array if in_rows else array.reshape(1, -1), names)  # noqa: PLW2901
            array = array if in_rows else array[0]  # noqa: PLW2901
        arrays.append(array)
    return arrays


def best_classes(wanted: Wish, scores: Array, names: Sequence[str]) -> Array:
    """[rows, ...] -> the texts [rows, min(classes, elements of a row)], best first: `0.900000:7:cat`."""
    flat = scores.reshape(len(scores), -1) if scores.size else np.empty((len(scores), 0), scores.dtype)
    if len(flat) * min(wanted.classes, flat.shape[1]) > MOST_CLASSES:
        raise too_many_classes(wanted.spec.name)
    best = top_classes(flat, wanted.classes)
    form = "%f:%d" if scores.dtype.kind == "f" else "%d:%d"
    values = np.take_along_axis(flat, best, axis=1)
    texts = np.empty(best.size, dtype=object)
    for at, (value, index) in enumerate(zip(values.ravel().tolist(), best.ravel().tolist(), strict=True)):
        text = form % (value, index)
        texts[at] = f"{text}:{names[index]}".encode() if index < len(names) else text.encode()
    return texts.reshape(best.shape)


def too_many_classes(name: str) -> Problem:
    """400: more texts than one answer holds."""
    return invalid(f"output {name!r}: a classification gives at most {MOST_CLASSES} classes, of all rows together")
