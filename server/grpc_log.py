"""What gRPC's library logs, made fit for our log; on any thread that logs, mostly the lane."""

from __future__ import annotations

import logging

LIBRARY = "grpc._cython.cygrpc"

log = logging.getLogger(__name__)


class NoGoneClients(logging.Filter):
    """Keeps a call whose client left while its answer was being sent from being logged as an error with a traceback.

    It is nobody's fault, and the library finds out outside of the handler. The call has been counted. The error's class
    has no public name.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and type(record.exc_info[1]).__name__ == "ExecuteBatchError":
            log.debug("a gRPC client left before its answer was sent")
            return False
        return True


NO_GONE_CLIENTS = NoGoneClients()


def tidy_library_log() -> None:
    """May be called any number of times."""
    logging.getLogger(LIBRARY).addFilter(NO_GONE_CLIENTS)
