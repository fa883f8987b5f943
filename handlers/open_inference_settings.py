"""What Triton's clients may read of tracing, logging and shared memory: how things stand, which no client changes.

Pure values, safe on any thread. There is no tracing and no shared memory; the log is Python's.
"""

from __future__ import annotations

import logging
from typing import Any

from rowserve.handlers.open_inference_messages import LogSettingsResponse, TraceSettingResponse
from rowserve.handlers.proto_wire import LENGTH, WireFault, fields

TRACE: dict[str, Any] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
SETTINGS = 1  # of a TraceSettingRequest, and of a LogSettingsRequest: what is to change
KINDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def log_settings() -> dict[str, bool | int | str]:
    """What goes into the log."""
    log = logging.getLogger("rowserve")
    return {
        "log_file": "",
        "log_info": log.isEnabledFor(logging.INFO),
        "log_warning": log.isEnabledFor(logging.WARNING),
        "log_error": log.isEnabledFor(logging.ERROR),
        "log_verbose_level": int(log.isEnabledFor(logging.DEBUG)),
        "log_format": "default",
    }


def wants_change(message: bytes) -> bool:
    """Whether a TraceSettingRequest or LogSettingsRequest holds settings; what cannot be read holds none."""
    try:
        return any(at == SETTINGS and kind == LENGTH for at, kind, _, _ in fields(memoryview(message)))
    except WireFault:
        return False


def encode_trace() -> bytes:
    """A TraceSettingResponse."""
    told = {name: {"value": value if isinstance(value, list) else [value]} for name, value in TRACE.items()}
    return TraceSettingResponse(settings=told).SerializeToString()


def encode_log() -> bytes:
    """A LogSettingsResponse."""
    told = {name: {KINDS[type(value)]: value} for name, value in log_settings().items()}
    return LogSettingsResponse(settings=told).SerializeToString()
