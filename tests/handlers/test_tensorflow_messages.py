from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from rowserve.handlers import tensorflow_messages
from rowserve.handlers.tensorflow_messages import ERRORS, GOOGLE, MESSAGES, SERVING, TENSORFLOW

THEIRS = (
    "google.protobuf.wrappers_pb2",
    "google.protobuf.any_pb2",
    "tensorflow.core.protobuf.meta_graph_pb2",
    "tensorflow.core.example.example_pb2",
    *(
        f"tensorflow_serving.apis.{name}_pb2"
        for name in (
            "predict",
            "classification",
            "regression",
            "inference",
            "get_model_metadata",
            "get_model_status",
        )
    ),
)
# They stay as they came: a message and bytes are the same on the wire.
RAW = {
    "tensorflow.serving.ExampleList.examples",
    "tensorflow.serving.ExampleListWithContext.examples",
    "tensorflow.serving.ExampleListWithContext.context",
}
MESSAGE, BYTES = 11, 12


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The pool that the generated modules share."""
    try:
        for name in THEIRS:
            importlib.import_module(name)
    except ImportError:
        if "TOX_ENV_NAME" in os.environ:
            raise
        pytest.skip("tensorflow-serving-api is not installed")
    from google.protobuf import descriptor_pool

    return descriptor_pool.Default()


def entries(descriptor: Any) -> Iterator[Any]:
    """The messages that stand for the entries of a message's maps."""
    return (nested for nested in descriptor.nested_types if nested.GetOptions().map_entry)


def shape(field: Any) -> tuple[Any, ...]:
    """All that makes a field's wire form and meaning."""
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        field.is_packed,
        kind and kind.full_name,
        oneof and oneof.name,
    )


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_is_described_as_its_owners_describe_it(theirs: Any, name: str) -> None:
    ours = MESSAGES[name].DESCRIPTOR  # type: ignore[attr-defined]
    real = theirs.FindMessageTypeByName(name)
    for mine, other in [(ours, real), *((e, real.nested_types_by_name[e.name]) for e in entries(ours))]:
        assert mine.fields
        assert mine.file.pool is not other.file.pool
        for field in mine.fields:
            known = shape(other.fields_by_name[field.name])
            if field.full_name in RAW:
                assert known[2] == MESSAGE
                known = (*known[:2], BYTES, *known[3:5], None, known[6])
            assert shape(field) == known


@pytest.mark.parametrize("table", [GOOGLE, TENSORFLOW, ERRORS, SERVING], ids=lambda table: table.package)
def test_enums_have_their_owners_numbers(theirs: Any, table: Any) -> None:
    pool = MESSAGES["tensorflow.TensorProto"].DESCRIPTOR.file.pool  # type: ignore[attr-defined]
    for name in table.enums:
        ours = pool.FindEnumTypeByName(f"{table.package}.{name}")
        real = theirs.FindEnumTypeByName(f"{table.package}.{name}")
        assert ours.values
        for value in ours.values:
            assert real.values_by_name[value.name].number == value.number


def filled(message: Any, depth: int = 3) -> Any:
    """A message with something in every field."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if depth:
                filled(getattr(message, field.name)["key"], depth - 1)
        elif field.message_type is not None:
            if depth:
                at = getattr(message, field.name)
                filled(at.add() if field.is_repeated else at, depth - 1)
        else:
            value: Any = b"" if field.type == BYTES else "a\0b" if field.type == 9 else 1
            if field.is_repeated:
                getattr(message, field.name).extend([value, value])
            elif field.containing_oneof is None or message.WhichOneof(field.containing_oneof.name) is None:
                setattr(message, field.name, value)
    return message


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_bytes_are_equal_both_ways(theirs: Any, name: str) -> None:
    from google.protobuf import message_factory

    real = message_factory.GetMessageClass(theirs.FindMessageTypeByName(name))
    ours = filled(MESSAGES[name]()).SerializeToString(deterministic=True)
    assert ours
    assert real.FromString(ours).SerializeToString(deterministic=True) == ours
    assert MESSAGES[name].FromString(ours).SerializeToString(deterministic=True) == ours


def test_the_named_messages_are_those_of_their_names() -> None:
    for name, message in vars(tensorflow_messages).items():
        descriptor = getattr(message, "DESCRIPTOR", None)
        assert descriptor is None or descriptor.name == name
