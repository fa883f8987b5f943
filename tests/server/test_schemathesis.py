"""/openapi.json is true: schemathesis asks a real server for all that it describes, and for what it does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.model_recipes import two_signatures
from tests.server.schemathesis_hooks import MODELS, ONLY
from tests.tools.digits_server import digits_models
from tests.tools.processes import REAL, ROOT, server

pytestmark = pytest.mark.slow
SOAK = os.environ.get("ROWSERVE_SOAK") == "1"
SEEDS = range(1, 21) if SOAK else (1,)
EXAMPLES = 40 if SOAK else 10
SECONDS = 220  # a hang is a failure


class Finding(NamedTuple):
    """What schemathesis holds against an answer."""

    kind: str
    status: int
    operation: str
    asked: str


class Wanted(NamedTuple):
    """Findings that are as they should be: `why` cites who wants it so."""

    kind: str
    statuses: tuple[int, ...]
    operations: str
    why: str

    def covers(self, found: Finding) -> bool:
        return (
            found.kind == self.kind
            and found.status in self.statuses
            and re.fullmatch(self.operations, found.operation) is not None
        )


ASKS_ROWS = (
    r"\w+ /(|images/.*|predictions/.*|models/{model}/invoke|invocations|graphpipe/.*"
    r"|v1/models/.*:(predict|classify|regress)|v2/models/.*/infer)"
)
READ_ONLY = r"POST /v2/(logging|trace/setting|models/{model}/trace/setting)"
LATE = Wanted(
    "ServerError", (504,), ASKS_ROWS, "RFC 9110, section 15.6.5: who gives a row a millionth of a second gets a 504"
)
WANTED = (
    LATE,
    Wanted(
        "RejectedPositiveData",
        (400, 422),
        ASKS_ROWS,
        "RFC 9110, sections 15.5.1 and 15.5.21: what a row looks like, which signatures and outputs there are, and "
        "whether there are labels only the model says, and OpenAPI cannot tell bodies apart by the {model} of a path",
    ),
    Wanted(
        "RejectedPositiveData",
        (400,),
        r"POST /rows/.*|GET /v2/models/{model}(/versions/{version})?",
        "the same of the query alone",
    ),
    Wanted(
        "UnsupportedMethodResponse",
        (400,),
        r"(GET|POST) /v1/models.*",
        "TensorFlow Serving's RESTful API: GET and POST that match none of its patterns are malformed requests, a 400 "
        "(to any other method: 405, as everywhere)",
    ),
    Wanted(
        "ServerError",
        (501,),
        READ_ONLY,
        "Open Inference Protocol, Triton's trace and logging extensions: a change of what is not supported is "
        "UNSUPPORTED, which is a 501 (RFC 9110, section 15.6.2)",
    ),
    Wanted("UnsupportedMethodResponse", (501,), READ_ONLY, "the same"),
)


@pytest.fixture(scope="module")
def url(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a picture model, and of one of numbers that has two signatures."""
    home = tmp_path_factory.mktemp("schemathesis")
    models = digits_models(digits, home)
    two_signatures(models / "numbers" / "1")
    with server("--models", str(models), "--cache", str(home / "cache"), program=REAL) as found:
        yield found


def events(url: str, folder: Path, seed: int, *more: str, **told: str) -> list[tuple[str, Any]]:
    """What a run of schemathesis tells of itself, in order."""
    report = folder / "report.ndjson"
    settings = ["--checks", "all", "--seed", str(seed), "--max-examples", str(EXAMPLES), *more]
    settings += ["--generation-database", "none"]
    settings += ["--continue-on-failure", "--no-shrink", "--suppress-health-check", "all", "--request-timeout", "60"]
    settings += ["--report", "ndjson", "--report-ndjson-path", str(report), "--no-color"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks", MODELS: "digits numbers", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *settings],
        cwd=folder,
        env={**os.environ, **hooks, **told},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout[-4000:] + done.stderr
    lines = report.read_text(encoding="utf-8").splitlines()
    return [next(iter(json.loads(line).items())) for line in lines]


def findings(told: list[tuple[str, Any]]) -> Iterator[Finding]:
    """All that is held against any answer."""
    for name, event in told:
        if name == "ScenarioFinished":
            recorder = event["recorder"]
            for case, checks in recorder.get("checks", {}).items():
                for check in checks:
                    if check["status"] != "success":
                        yield finding(check, recorder["cases"][case]["value"], recorder["interactions"][case])


def finding(check: Any, case: Any, interaction: Any) -> Finding:
    """One of them."""
    request, answer = interaction["request"], interaction.get("response") or {"status_code": 0, "content": None}
    failure = check["failure_info"]["failure"]
    sent = b64decode((request.get("body") or {"$base64": ""})["$base64"])[:300]
    got = b64decode((answer["content"] or {"$base64": ""})["$base64"])[:300]
    asked = f"{request['method']} {request['uri']} {request['headers']} {sent!r} -> {got!r}: {failure['message']}"
    return Finding(failure["type"], answer["status_code"], f"{request['method']} {case['path']}", asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_description_is_true(url: str, tmp_path: Path, seed: int):
    told = events(url, tmp_path, seed)
    assert answered(told) > 2500, "most of the description was not tried"
    found = list(findings(told))
    assert not shown(each for each in found if not wanted(each))
    assert len(WANTED) <= 10
    for each in WANTED[1:]:  # a row that fits and a very short deadline come together by chance only
        assert any(each.covers(one) for one in found), f"wanted, and found no more: {each}"


@pytest.mark.parametrize("seed", SEEDS)
def test_what_fits_a_model_is_answered(url: str, tmp_path: Path, seed: int):
    told = events(url, tmp_path, seed, "--mode", "positive", **{ONLY: "numbers"})
    assert answered(told) > 100
    assert not shown(each for each in findings(told) if not LATE.covers(each))


def answered(told: list[tuple[str, Any]]) -> int:
    """How many requests were answered, in a run that came to its end."""
    assert "EngineFinished" in [name for name, _ in told]
    assert [event for name, event in told if name in ("NonFatalError", "FatalError", "Interrupted")] == []
    return sum(len(event["recorder"].get("interactions", {})) for name, event in told if name == "ScenarioFinished")


def shown(found: Iterable[Finding]) -> str:
    """One of each kind."""
    return "\n".join(str(each) for each in {(each.kind, each.status, each.operation): each for each in found}.values())


def wanted(found: Finding) -> bool:
    """Whether some standard wants it so."""
    return any(each.covers(found) for each in WANTED)
