"""TensorFlow Serving's gRPC Classify, Regress and MultiInference: Examples to rows of strings, and their results.

Pure values, safe on any thread. An Example goes into the model as it came; a context's bytes stand before each, which
is how protobuf merges two messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from rowserve.graphs.proto_tables import Message
from rowserve.graphs.rows import Array, Buffer, Rows
from rowserve.graphs.signature import STRING, Signature
from rowserve.handlers.items import Answer, ModelFace, Options, Question
from rowserve.handlers.problem import Problem
from rowserve.handlers.proto_wire import LENGTH, WireFault, fields, head, text, whole
from rowserve.handlers.tensorflow_messages import (
    ClassificationResult,
    InferenceResult,
    RegressionResult,
)
from rowserve.handlers.tensorflow_serving_grpc import ModelSpec, given_spec, signature_of, unreadable
from rowserve.handlers.tensorflow_serving_texts import data_type, invalid
from rowserve.handlers.tensors import tensors_of

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"
MOST_TASKS = 64


@dataclass(frozen=True, slots=True)
class Task:
    """What is wanted of the Examples: of MultiInference's tasks, or all that a Classify or a Regress wants."""

    spec: ModelSpec
    method: str


def read_request(method: str, message: bytes, room: int) -> tuple[Task, list[bytes]]:
    """What a Classify or a Regress asks: a task, and its Examples. Raises Problem 400."""
    try:
        spec: list[Buffer] = []
        given: list[Buffer] = []
        for at, wire, _, data in fields(memoryview(message)):
            if wire == LENGTH and at in (1, 2):
                (spec if at == 1 else given).append(data)
        return Task(given_spec(spec), method), read_input(whole(given), room)
    except WireFault as fault:
        raise unreadable("ClassificationRequest" if method == CLASSIFY else "RegressionRequest", fault) from None


def read_tasks(message: bytes, room: int) -> tuple[list[Task], list[bytes]]:
    """The tasks of a MultiInference, and their Examples. Raises Problem 400 or 501."""
    try:
        tasks: list[Task] = []
        given: list[Buffer] = []
        for at, wire, _, data in fields(memoryview(message)):
            if wire == LENGTH and at == 1:
                tasks.append(read_task(data))
            elif wire == LENGTH and at == 2:
                given.append(data)
            if len(tasks) > MOST_TASKS:
                raise WireFault(f"more than {MOST_TASKS} tasks")
        check_tasks(tasks)
        return tasks, read_input(whole(given), room)
    except WireFault as fault:
        raise unreadable("MultiInferenceRequest", fault) from None


def read_task(message: memoryview) -> Task:
    """An InferenceTask."""
    spec: list[Buffer] = []
    method = ""
    for at, wire, _, data in fields(message):
        if wire == LENGTH and at == 1:
            spec.append(data)
        elif wire == LENGTH and at == 2:
            method = text(data)
    return Task(given_spec(spec), method)


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raises Problem 400 or 501 unless they are of one model and of several signatures."""
    seen: set[str] = set()
    if not tasks:
        raise invalid("Inference request must have at least one task")
    for task in tasks:
        signature = task.spec.signature or "serving_default"
        if task.spec.name != tasks[0].spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        if signature in seen:
            raise invalid(f"Duplicate evaluation of signature: {signature}")
        seen.add(signature)
        if task.method not in (CLASSIFY, REGRESS):
            raise Problem(501, f"Unsupported signature method_name: {task.method}")


def read_input(message: memoryview, room: int) -> list[bytes]:
    """The Examples of an Input, serialized. Raises WireFault, or Problem 400 where there is none.

    The context, times the number of Examples, may take up to `room` bytes.
    """
    chosen = 0
    pieces: list[Buffer] = []
    for at, wire, _, data in fields(message):
        if wire == LENGTH and at in (1, 2):
            if at != chosen:
                chosen, pieces = at, []  # of a oneof, the last counts
            pieces.append(data)
    examples: list[memoryview] = []
    context: list[Buffer] = []
    for at, wire, _, data in fields(whole(pieces)):
        if wire == LENGTH and at == 1:
            examples.append(data)
        elif wire == LENGTH and at == 2 and chosen == 2:
            context.append(data)
    if not examples:
        raise invalid("Input is empty.")
    shared = bytes(whole(context))
    if len(shared) * len(examples) > room:
        told = f"a context of {len(shared):,} bytes for each of {len(examples):,} examples"
        raise Problem(413, f"{told} is more than {room:,} bytes", reason="too_large")
    return [b"".join((shared, example)) for example in examples]


def examples_question(
    face: ModelFace, task: Task, examples: Sequence[bytes], options: Options, response: type[Message]
) -> Question[bytes]:
    """The rows that a task asks for. Raises Problem.

    The answer goes into `response`: a ClassificationResponse, a RegressionResponse or an InferenceResult.
    """
    signature = signature_of(face, task.spec.signature)
    if task.method == CLASSIFY:
        check_classify(signature)
        field, result = "classification_result", classification_result
    else:
        check_regress(signature)
        field, result = "regression_result", regression_result
    spec = {"name": face.name, "version": {"value": face.version}, "signature_name": signature.name}

    def encode(answer: Answer) -> bytes:
        made = {"result" if response is not InferenceResult else field: result(tensors_of(answer), len(examples))}
        return response(model_spec=spec, **made).SerializeToString()

    return Question(signature, [Rows({INPUTS: string_rows(examples)}, len(examples))], options, encode)


def string_rows(examples: Sequence[bytes]) -> Array:
    """The Examples as a tensor [N] of strings."""
    array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return array


def join_results(results: Sequence[bytes]) -> bytes:
    """A MultiInferenceResponse of InferenceResults that are encoded already."""
    return b"".join(part for result in results for part in (head(1, len(result)), result))


def check_input(signature: Signature, what: str) -> None:
    """Raises Problem 400 unless the signature takes Examples."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    spec = signature.input(INPUTS)
    if spec is None:
        raise invalid(f"No {what} inputs found in SignatureDef: {signature.name}")
    if spec.dtype != STRING or not spec.batched or not spec.accepts(()):
        raise invalid(f"The input of signature {signature.name} does not take serialized Examples: {spec.dtype}")


def check_classify(signature: Signature) -> None:
    """Raises Problem 400 unless the signature can classify."""
    check_input(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if signature.output(CLASSES) is None and signature.output(SCORES) is None:
        told = "Expected classification signature outputs to contain at least one of"
        raise invalid(f'{told} "{CLASSES}" or "{SCORES}". Signature was: {signature.name}')


def check_regress(signature: Signature) -> None:
    """Raises Problem 400 unless the signature can regress."""
    check_input(signature, "regression")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if signature.output(OUTPUTS) is None:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.name}")


def classification_result(outputs: Mapping[str, Array], count: int) -> Message:
    """Each row's classes: label (if there are any) and score (if there are any). Raises Problem 400."""
    labels, scores = outputs.get(CLASSES), outputs.get(SCORES)
    for name, array, dtype in ((CLASSES, labels, np.dtype(object)), (SCORES, scores, np.dtype(np.float32))):
        if array is None:
            continue
        if array.dtype != dtype:
            raise invalid(f"Expected {name} Tensor of type {dtype_name(dtype)}. Got: {dtype_name(array.dtype)}")
        if array.ndim != 2 or len(array) != count:
            raise invalid(f"Expected {name} Tensor shape: [{count}, number of classes]. Got: {list(array.shape)}")
    if labels is not None and scores is not None and labels.shape != scores.shape:
        told = f"Got: {labels.shape[1]} classes and {scores.shape[1]} scores"
        raise invalid(f"Tensors class and score should match in num_classes. {told}")
    result = ClassificationResult()
    for row in range(count):
        classes = result.classifications.add().classes
        named = [] if labels is None else [label.decode("utf-8", "replace") for label in labels[row]]
        scored = [] if scores is None else scores[row].tolist()
        for label, score in zip_longest(named, scored):
            classes.add(label=label, score=score)
    return result


def regression_result(outputs: Mapping[str, Array], count: int) -> Message:
    """Each row's value. Raises Problem 400."""
    values = outputs[OUTPUTS]
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of type float. Got: {dtype_name(values.dtype)}")
    if values.shape not in ((count,), (count, 1)):
        told = f"Expected output Tensor shape to be either [{count}] or [{count}, 1]"
        raise invalid(f"{told}. Got: {list(values.shape)}")
    return RegressionResult(regressions=[{"value": value} for value in values.reshape(-1).tolist()])


def dtype_name(dtype: np.dtype[Any]) -> str:
    """A dtype as TensorFlow names it."""
    return data_type(STRING if dtype.kind == "O" else dtype.name)
