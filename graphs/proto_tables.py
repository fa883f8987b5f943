"""Protobuf message classes out of a compact table of their fields, in a descriptor pool that only this table has.

Pure values, safe on any thread. A client's generated modules register the same names in protobuf's default pool, and
one pool holds a name once; in a pool of our own they never meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# `repeated float scores = 2`, `map<string, Feature> feature = 1`, `Int64Value version = 2 of version_choice`
FIELD = re.compile(
    r"(?P<repeated>repeated )?(?:map<(?P<key>\w+), (?P<value>[\w.]+)>|(?P<type>[\w.]+)) (?P<name>\w+) = (?P<number>\d+)"
    r"(?: of (?P<oneof>\w+))?"
)
VALUE = re.compile(r"(?P<name>\w+) = (?P<number>\d+)")
SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("double", "float", "int32", "int64", "uint32", "uint64", "bool", "string", "bytes")
}
SINGLE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


class Message(Protocol):
    """A protobuf message; its fields are attributes."""

    def __init__(self, **fields: Any) -> None: ...

    def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None: ...

    @classmethod
    def FromString(cls, data: bytes) -> Message:  # noqa: N802
        """Reads one. Raises google.protobuf.message.DecodeError."""

    def SerializeToString(self, *, deterministic: bool = False) -> bytes:  # noqa: N802
        """Its bytes; `deterministic` writes maps in the order of their keys."""

    def HasField(self, name: str) -> bool:  # noqa: N802
        """Whether a message field, or a member of a oneof, is there."""

    def WhichOneof(self, name: str) -> str | None:  # noqa: N802
        """The member of a oneof that is there."""


@dataclass(frozen=True)
class ProtoTable:
    """The messages and enums of one proto3 package, each by its name inside the package (`Outer.Inner` when nested).

    A message is its fields as a .proto file has them, with `;` between; `of NAME` behind a field puts it in a oneof.
    Types are found from the message outwards, as protobuf does, also those of the tables before it. An enum is its
    values, with `;` between.
    """

    package: str
    messages: Mapping[str, str]
    enums: Mapping[str, str] = field(default_factory=dict)


def message_classes(*tables: ProtoTable) -> dict[str, type[Message]]:
    """The classes of all messages, by full name. Raises ValueError or TypeError for a table that is wrong."""
    pool = descriptor_pool.DescriptorPool()
    classes: dict[str, type[Message]] = {}
    before: list[str] = []
    for table in tables:
        file = file_of(table, before)
        pool.Add(file)
        before.append(file.name)
    for table in tables:
        for name in table.messages:
            full = f"{table.package}.{name}"
            classes[full] = message_factory.GetMessageClass(pool.FindMessageTypeByName(full))
    return classes


def file_of(table: ProtoTable, before: list[str]) -> Any:
    """The table as the description of a .proto file."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{table.package}.proto", package=table.package, syntax="proto3")
    file.dependency.extend(before)
    made: dict[str, Any] = {"": file}
    for name, fields in table.messages.items():
        outer, _, own = name.rpartition(".")
        message = made[outer].nested_type.add(name=own) if outer else file.message_type.add(name=own)
        made[name] = message
        for text in parts(fields):
            add_field(message, text)
    for name, values in table.enums.items():
        outer, _, own = name.rpartition(".")
        enum = made[outer].enum_type.add(name=own)
        for text in parts(values):
            value = matched(VALUE, text)
            enum.value.add(name=value["name"], number=int(value["number"]))
    return file


def parts(text: str) -> list[str]:
    """What stands between the semicolons."""
    return [" ".join(part.split()) for part in text.split(";") if part.strip()]


def matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    """The whole text as the pattern reads it. Raises ValueError."""
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"a table cannot say {text!r}")
    return found


def add_field(message: Any, text: str) -> None:
    """Adds one field to the description of a message."""
    said = matched(FIELD, text)
    made = message.field.add(name=said["name"], number=int(said["number"]), label=SINGLE)
    if said["key"]:
        made.label = REPEATED
        made.type_name = add_entry(message, said)
    else:
        set_type(made, said["type"])
        if said["repeated"]:
            made.label = REPEATED
    if said["oneof"]:
        names = [oneof.name for oneof in message.oneof_decl]
        if said["oneof"] not in names:
            message.oneof_decl.add(name=said["oneof"])
            names.append(said["oneof"])
        made.oneof_index = names.index(said["oneof"])


def add_entry(message: Any, said: re.Match[str]) -> str:
    """The message that stands for one entry of a map; gives its name."""
    name = "".join(word[:1].upper() + word[1:] for word in said["name"].split("_")) + "Entry"
    entry = message.nested_type.add(name=name)
    entry.options.map_entry = True
    set_type(entry.field.add(name="key", number=1, label=SINGLE), said["key"])
    set_type(entry.field.add(name="value", number=2, label=SINGLE), said["value"])
    return name


def set_type(made: Any, name: str) -> None:
    """A scalar, or the name of a message or enum."""
    if name in SCALARS:
        made.type = SCALARS[name]
    else:
        made.type_name = name
