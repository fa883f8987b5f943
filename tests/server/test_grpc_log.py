from __future__ import annotations

import logging

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from grpc._cython import cygrpc

from rowserve.server.grpc_log import LIBRARY, tidy_library_log


def logged(error: Exception) -> None:
    """As the library does it."""
    try:
        raise error
    except Exception:
        logging.getLogger(LIBRARY).exception("raised in core")


def test_gone_clients_are_kept_out_and_all_else_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    tidy_library_log()
    tidy_library_log()
    with caplog.at_level(logging.DEBUG):
        logged(cygrpc.ExecuteBatchError("Failed"))
        logged(cygrpc.InternalError("not ours to hide"))
        logging.getLogger(LIBRARY).error("plain", exc_info=None)
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [
        ("DEBUG", "a gRPC client left before its answer was sent"),
        ("ERROR", "raised in core"),
        ("ERROR", "plain"),
    ]
