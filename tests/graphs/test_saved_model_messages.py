from __future__ import annotations

from typing import Any

import pytest

from rowserve.graphs.engine import tensorflow
from rowserve.graphs.saved_model_messages import GRAPH, MESSAGES, SavedModelMessage, dtype_name


def theirs() -> dict[str, Any]:
    """TensorFlow's own descriptions, by full name."""
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    found: dict[str, Any] = {}
    todo = [saved_model_pb2.SavedModel.DESCRIPTOR]
    while todo:
        each = todo.pop()
        if each.full_name not in found:
            found[each.full_name] = each
            todo += [field.message_type for field in each.fields if field.message_type]
    return found


# Where these stand in TensorFlow's files is of no matter on the wire.
MOVED = {
    "tensorflow.ObjectReference": "tensorflow.TrackableObjectGraph.TrackableObject.ObjectReference",
    "tensorflow.MetaInfoDef": "tensorflow.MetaGraphDef.MetaInfoDef",
}
OURS = sorted({f"tensorflow.{name}" for name in GRAPH.messages} - {"tensorflow.Anything"})


@pytest.mark.parametrize("name", OURS)
def test_every_field_has_tensorflow_s_number_and_form(name: str):
    real = theirs()[MOVED.get(name, name)]
    descriptor: Any = MESSAGES[name]
    for field in descriptor.DESCRIPTOR.fields:
        other = real.fields_by_name[field.name]
        enum = other.type == other.TYPE_ENUM and field.type == field.TYPE_INT32
        assert field.number == other.number
        assert enum or field.type == other.type
        assert field.is_repeated == other.is_repeated


def test_dtypes_have_tensorflow_s_names():
    tf = tensorflow()
    for number in (*range(1, 24), *range(101, 124)):
        assert dtype_name(number) == tf.dtypes.as_dtype(number).name
    assert dtype_name(99) == "number 99"


def test_a_message_is_written_as_it_was_read(model):
    content = (model("linear") / "saved_model.pb").read_bytes()
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    again = SavedModelMessage.FromString(content).SerializeToString()
    assert saved_model_pb2.SavedModel.FromString(again) == saved_model_pb2.SavedModel.FromString(content)
