"""The table of routes that /openapi.json is made of. Pure values; a test holds it against Klein's own map."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEM = "application/problem+json"
JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query."""

    name: str
    text: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `takes` and `gives` are content types; `statuses` are those beside 200."""

    method: str
    path: str
    text: str
    gives: str
    takes: tuple[str, ...] = ()
    query: tuple[Parameter, ...] = ()
    statuses: tuple[int, ...] = ()
    faults: str = PROBLEM


TOP = Parameter("top", "How many of the best classes a row gets, where the model has labels.")
OUTPUTS = Parameter("outputs", "Names of outputs, separated by commas, to be given as raw arrays.")
SIGNATURE = Parameter("signature", "The signature; serving_default, or the only one, where it is not given.")
PRIORITY = Parameter("priority", "bulk fills what interactive requests leave.", ("interactive", "bulk"))
SYNC = Parameter("sync", "1: the last line comes after all rows are on disk.", ("0", "1"))
ASKING = (400, 404, 408, 413, 415, 500, 503, 504)


def both(method: str, path: str, tail: str, text: str, gives: str, **more: object) -> tuple[Route, Route]:
    """A route of a model, and the same of one of its versions."""
    return (
        Route(method, f"{path}/{{model}}{tail}", text, gives, **more),  # type: ignore[arg-type]
        Route(method, f"{path}/{{model}}/versions/{{version}}{tail}", text, gives, **more),  # type: ignore[arg-type]
    )


ROUTES: tuple[Route, ...] = (
    *both(
        "POST",
        "/images",
        "",
        "Pictures in, one row each: any number of file parts, or one picture as the body.",
        JSON,
        takes=(FORM, "image/*"),
        query=(TOP, OUTPUTS, SIGNATURE),
        statuses=(*ASKING[:-3], 422, *ASKING[-3:]),
    ),
    *both(
        "POST",
        "/rows",
        "",
        "One JSON row a line in, one JSON answer a line out, streamed both ways: read while you send.",
        NDJSON,
        takes=(NDJSON,),
        query=(TOP, OUTPUTS, SIGNATURE, PRIORITY, SYNC),
        statuses=ASKING,
    ),
    *both(
        "POST",
        "/v1/models",
        ":predict",
        "TensorFlow Serving's predict, in row form (instances) or column form (inputs).",
        JSON,
        takes=(JSON,),
        statuses=ASKING,
        faults=JSON,
    ),
    *both("GET", "/v1/models", "", "TensorFlow Serving's model status.", JSON, statuses=(404,), faults=JSON),
    *both("GET", "/v1/models", "/metadata", "TensorFlow Serving's model metadata.", JSON, statuses=(404,), faults=JSON),
    Route("GET", "/livez", "Whether the process does its work.", JSON, statuses=(503,), faults=JSON),
    Route("GET", "/readyz", "Whether all models are loaded and warmed.", JSON, statuses=(503,), faults=JSON),
    Route("GET", "/metrics", "Prometheus' figures.", "text/plain"),
    Route("GET", "/openapi.json", "This description.", JSON),
)
