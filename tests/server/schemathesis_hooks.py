"""What schemathesis is told beside the description: how lines are sent, and the names of the models that are served."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

MODELS = "ROWSERVE_TEST_MODELS"


@schemathesis.serializer("application/x-ndjson")
def line(context: Any, value: Any) -> Any:
    """One row; what is bytes already was made by a mutation."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson", "application/octet-stream")
def text(context: Any, response: Any) -> str:
    """A body that is no JSON is a string to a schema."""
    return str(response.content.decode("latin-1"))


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Most requests go to a model that is there."""
    served = {"model": os.environ[MODELS].split(), "version": ["1", "0"]}
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] in served:
                    parameter["schema"]["enum"] = served[parameter["name"]]
