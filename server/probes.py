"""GET /livez and /readyz: whether to restart this process, and whether to send it requests. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from rowserve.handlers.items import Encoded

if TYPE_CHECKING:
    from rowserve.server.models import Models

JSON = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]


def livez(fault: str) -> Encoded:
    """200, or 503 with what is stuck: then only a restart helps."""
    return encoded(503 if fault else 200, {"live": not fault, **({"fault": fault} if fault else {})})


def readyz(models: Models, draining: bool, strict: bool = False) -> Encoded:
    """200 once everything is loaded and warmed; 503 before that and as soon as the server stops.

    Names each version's state. A broken model does not keep the others from serving: it does not make the server
    unready, but for who asks to be `strict`.
    """
    states = list(models.states())
    if draining:
        state = "draining"
    elif models.ready and not (strict and any(each.state == "broken" for each in states)):
        state = "ready"
    elif any(each.state == "loading" for each in states):
        state = "loading"
    else:
        state = "broken" if states else "no models"
    told: list[dict[str, Any]] = []
    for each in states:
        entry = {"name": each.name, "version": str(each.version), "state": each.state}
        told.append({**entry, "fault": each.fault} if each.fault else entry)
    return encoded(200 if state == "ready" else 503, {"ready": state == "ready", "state": state, "models": told})


def encoded(status: int, document: dict[str, Any]) -> Encoded:
    """A small JSON answer that nobody keeps."""
    return Encoded(status, JSON, orjson.dumps(document) + b"\n")
