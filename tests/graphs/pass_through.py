"""A graph that keeps what it is fed: it passes it through, and assigns the first batch to a variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def pass_through(width: int) -> tuple[Callable[[Any], Any], Callable[[], Any]]:
    """Two calls: one feeds two rows and gives them back, the other gives what the variable holds."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2

    v1 = tf.compat.v1
    with v1.Graph().as_default() as graph:
        fed = v1.placeholder(tf.float32, [None, width])
        kept = v1.get_variable("kept", [2, width], use_resource=True)
        with v1.control_dependencies([kept.assign(fed)]):
            back = tf.identity(fed)
        value = kept.read_value()
        session = v1.Session(graph=graph)
        call = session._make_callable_from_options(config_pb2.CallableOptions(feed=[fed.name], fetch=[back.name]))
    return lambda rows: call(rows)[0], lambda: session.run(value)
