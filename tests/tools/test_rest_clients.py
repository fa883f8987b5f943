"""curl and requests, as the users of TorchServe and KServe call them, against a running server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.tools.digits_server import digits_models, digits_server, picture, scan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rest")


@pytest.fixture(scope="module")
def urls(digits: Path, home: Path) -> Iterator[dict[str, str]]:
    """The address of each profile of one server."""
    profiles = ("native", "kserve", "torchserve")
    with digits_server(digits_models(digits, home), *profiles) as addresses:
        yield dict(zip(profiles, addresses, strict=True))


@pytest.fixture(scope="module")
def files(home: Path) -> Path:
    """A folder with a scan of a 7 as a picture, as a tensor's bytes, and as JSON."""
    folder = home / "files"
    folder.mkdir()
    (folder / "7.png").write_bytes(picture(scan(7)))
    (folder / "7.jpg").write_bytes(picture(scan(7), "JPEG"))
    (folder / "7.bin").write_bytes(scan(7).tobytes())
    (folder / "7.json").write_text(json.dumps(scan(7).tolist()), encoding="utf-8")
    (folder / "two.json").write_text(json.dumps({"instances": [scan(7).tolist(), scan(3).tolist()]}), encoding="utf-8")
    return folder


def curl(folder: Path, *arguments: str) -> Any:
    """What curl prints, as JSON, and the status."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = ["curl", "-s", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), json.loads(body)


def best(told: dict[str, float]) -> str:
    """The label that a classifier's answer begins with; the scores fall."""
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert len(told) == 5
    return next(iter(told))


# TorchServe


@pytest.mark.parametrize(
    "arguments",
    [
        ("-T", "7.png"),
        ("-T", "7.jpg"),
        ("-T", "7.bin"),
        ("-T", "7.json"),
        ("-F", "data=@7.png"),
        ("-F", "data=@7.bin"),
        ("-F", "data=@7.json;type=application/json"),
        ("--data-binary", "@7.png"),
        ("--data-binary", "@7.bin"),
        ("-d", "@7.json"),
        ("-X", "POST", "-T", "7.png"),
        ("-H", "Content-Type: application/json", "-d", "@7.json"),
        ("-H", "Content-Type: image/png", "--data-binary", "@7.png"),
        ("-H", "Content-Type: application/octet-stream", "--data-binary", "@7.bin"),
    ],
)
def test_curl_sends_one_instance_in_any_way(urls, files, arguments):
    status, told = curl(files, f"{urls['native']}/predictions/digits", *arguments)
    assert (status, best(told)) == (200, "7")


def test_curl_sends_instances(urls, files):
    for url in urls.values():
        status, told = curl(files, f"{url}/predictions/digits/1.0", "-d", "@two.json")
        assert (status, [best(each) for each in told]) == (200, ["7", "3"])


def test_requests_sends_what_torchserves_users_send(urls, files):
    url = f"{urls['torchserve']}/predictions/digits"
    png = (files / "7.png").read_bytes()
    text = b64encode(png).decode()
    answers = [
        requests.post(url, data=png),
        requests.put(url, data=png),
        requests.post(url, files={"data": png}),
        requests.post(url, files={"data": (files / "7.png").open("rb")}),
        requests.post(url, json={"data": text}),
        requests.post(url, data=json.dumps({"data": scan(7).tolist()})),
        requests.post(f"{urls['torchserve']}/invocations", data=png),
        requests.post(f"{urls['torchserve']}/models/digits/invoke", data=png),
    ]
    assert [best(answer.json()) for answer in answers] == ["7"] * len(answers)
    assert {answer.headers["Cache-Status"] for answer in answers[1:]} == {"rowserve; hit"}
    listed = requests.post(url, json={"instances": [{"data": text}, {"data": text}]})
    assert [best(each) for each in listed.json()] == ["7", "7"]


def test_torchserves_health_and_models(urls):
    url = urls["torchserve"]
    assert requests.get(f"{url}/ping").json() == {"status": "Healthy"}
    assert requests.get(f"{url}/models").json() == {"models": [{"modelName": "digits", "modelUrl": "digits"}]}
    (told,) = requests.get(f"{url}/models/digits").json()
    assert (told["modelVersion"], told["workers"][0]["status"], told["batchSize"]) == ("1", "READY", 32)


def test_torchserves_errors(urls, files):
    url = urls["torchserve"]
    status, told = curl(files, f"{url}/predictions/no", "-T", "7.png")
    assert (status, told) == (404, {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: no"})
    status, told = curl(files, f"{url}/predictions/digits/3", "-T", "7.png")
    assert (status, told["type"]) == (404, "ModelVersionNotFoundException")
    status, told = curl(files, "-X", "POST", f"{url}/models?url=m.mar")
    assert (status, "managed by files" in told["message"]) == (405, True)
    answer = requests.post(f"{url}/predictions/digits", data=b"\x89PNG\r\n\x1a\nbroken")
    assert (answer.status_code, answer.json()["code"]) == (422, 422)
    assert requests.get(f"{url}/predictions/digits").status_code == 400


# KServe


def test_kserves_predict(urls, files):
    body = json.loads((files / "two.json").read_text(encoding="utf-8"))
    for profile, url in urls.items():
        answer = requests.post(f"{url}/v1/models/digits:predict", json=body)
        assert answer.status_code == 200
        assert np.argmax(answer.json()["predictions"], axis=1).tolist() == [7, 3], profile
    told = requests.post(f"{urls['kserve']}/v1/models/digits:predict", json={"inputs": body["instances"]}).json()
    assert told == answer.json()
    text = b64encode((files / "7.png").read_bytes()).decode()
    told = requests.post(f"{urls['kserve']}/v1/models/digits:predict", json={"instances": [{"data": text}]}).json()
    assert np.argmax(told["predictions"], axis=1).tolist() == [7]


def test_kserves_events(urls, files):
    url = f"{urls['kserve']}/v1/models/digits:predict"
    body = json.loads((files / "two.json").read_text(encoding="utf-8"))
    attributes = {"specversion": "1.0", "id": "1", "source": "here", "type": "t", "time": "2024-01-01T00:00:00Z"}
    binary = requests.post(url, json=body, headers={f"ce-{name}": value for name, value in attributes.items()})
    assert binary.headers["ce-type"] == "io.kserve.inference.response"
    assert len(binary.json()["predictions"]) == 2
    kind = {"Content-Type": "application/cloudevents+json"}
    structured = requests.post(url, data=json.dumps({**attributes, "data": body}), headers=kind)
    assert structured.headers["Content-Type"] == kind["Content-Type"]
    assert structured.json()["data"] == binary.json()


def test_kserves_health_and_errors(urls):
    url = urls["kserve"]
    assert requests.get(f"{url}/").json() == {"status": "alive"}
    assert requests.get(f"{url}/v1/models").json() == {"models": ["digits"]}
    assert requests.get(f"{url}/v1/models/digits").json() == {"name": "digits", "ready": True}
    missing = requests.post(f"{url}/v1/models/no:predict", json={"instances": []})
    assert (missing.status_code, missing.json()) == (404, {"error": "Model with name no does not exist."})
    bad = requests.post(f"{url}/v1/models/digits:predict", data=b"{")
    assert bad.status_code == 400
    assert bad.json()["error"].startswith("Unrecognized request format: ")
    ragged = requests.post(f"{url}/v1/models/digits:predict", json={"instances": [[[1, 2]]]})
    assert (ragged.status_code, ragged.json()["error"].partition(":")[0]) == (400, "instances[0]")


# What holds for both


def test_wishes_and_figures(urls):
    url = f"{urls['native']}/predictions/digits"
    fresh = scan(9, 3).tobytes()
    missing = requests.post(url, data=fresh, headers={"Cache-Control": "only-if-cached"})
    assert (missing.status_code, missing.json()["type"]) == (504, "RequestTimeoutException")
    assert "fwd=miss" in requests.post(url, data=fresh).headers["Cache-Status"]
    both = json.dumps({"instances": [scan(9, 3).tolist(), scan(8, 3).tolist()]})
    assert 'fwd=partial; detail="hit=1 computed=1"' in requests.post(url, data=both).headers["Cache-Status"]
    kserve = requests.post(f"{urls['kserve']}/v1/models/digits:predict", data=both)
    assert kserve.headers["Cache-Status"] == "rowserve; hit"
    figures = requests.get(f"{urls['native']}/metrics").text
    for protocol in ("torchserve", "kserve"):
        told = rf'rowserve_rows_total{{model="digits",outcome="hit",protocol="{protocol}",version="1"}} [1-9]'
        assert re.search(told, figures)


def test_torchserves_sample_for_kserve(urls):
    """As its example for KServe sends it, V1 and V2."""
    text = b64encode(picture(scan(7))).decode()
    for profile in ("kserve", "torchserve"):
        body: Any = {"instances": [{"data": text, "target": 0}]}
        told = requests.post(f"{urls[profile]}/v1/models/digits:predict", json=body, timeout=60)
        assert told.status_code == 200, told.text
        assert np.argmax(told.json()["predictions"][0]) == 7
        tensor: Any = {"name": "312a4eb0-0ca7-4803", "shape": [-1], "datatype": "BYTES", "data": [text]}
        told = requests.post(f"{urls[profile]}/v2/models/digits/infer", json={"inputs": [tensor]}, timeout=60)
        assert told.status_code == 200, told.text
        assert np.argmax(told.json()["outputs"][0]["data"]) == 7
    native = requests.post(f"{urls['native']}/v1/models/digits:predict", json=body, timeout=60)
    assert native.status_code == 400
