"""`serve` as a process: what it says, and how it refuses. No TensorFlow but where a broken model asks for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.request import urlopen

import pytest

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.example_row import row_of_ones
from rowserve.server.engine_threads import PATIENCE
from rowserve.tools.example_requests import send_row
from tests.tools.digits_server import digits_models
from tests.tools.processes import END_SECONDS, REAL, SERVING, arithmetic_model, one_line, rowserve, server, started


@pytest.fixture
def cache(tmp_path: Path) -> list[str]:
    return ["--cache", str(tmp_path / "cache")]


def test_it_serves_all_models_and_leaves_cleanly(tmp_path: Path, cache: list[str]) -> None:
    arithmetic_model(tmp_path / "models" / "one")
    two = arithmetic_model(tmp_path / "elsewhere")
    with server("--models", str(tmp_path / "models"), "--model", f"two={two}", *cache) as url:
        ready = json.loads(urlopen(f"{url}/readyz").read())
    assert [(model["name"], model["state"]) for model in ready["models"]] == [("one", "ready"), ("two", "ready")]


def test_a_taken_port_is_told_in_one_line(tmp_path: Path, cache: list[str]) -> None:
    model = arithmetic_model(tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = rowserve("serve", "--model", f"m={model}", "--listen", address, *cache)
    assert done.returncode == 2
    assert address in one_line(done.stderr)
    assert "--listen" in one_line(done.stderr)


@pytest.mark.parametrize("fault", ["in use", "not ours", "no such host"])
def test_a_grpc_port_that_cannot_be_had_is_told_in_one_line(tmp_path: Path, cache: list[str], fault: str) -> None:
    pytest.importorskip("grpc")
    model = arithmetic_model(tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = {"in use": f"127.0.0.1:{port}", "not ours": "192.0.2.1:0", "no such host": "none.invalid:0"}[fault]
        done = rowserve("serve", "--model", f"m={model}", "--listen", "127.0.0.1:0", "--grpc", address, *cache)
    assert done.returncode == 2
    assert f"cannot listen on {address}: " in one_line(done.stderr)
    assert "--grpc" in one_line(done.stderr)


@pytest.mark.parametrize("command", ["serve", "infer"])
@pytest.mark.parametrize("fault", ["missing", "empty", "no model", "bad card"])
def test_a_folder_that_is_no_model_is_told_in_one_line(
    tmp_path: Path, cache: list[str], command: str, fault: str
) -> None:
    model = tmp_path / "model"
    if fault != "missing":
        model.mkdir()
    if fault == "no model":
        (model / "notes.txt").write_text("nothing")
    if fault == "bad card":
        arithmetic_model(tmp_path / "model2").rename(model / "x")
        (model / "x" / "rowserve.toml").write_text("[batch]\nmax_row = 3\n")
        model = model / "x"
    arguments = ["--model", f"m={model}", "--listen", "127.0.0.1:0"] if command == "serve" else [str(model)]
    done = rowserve(command, *arguments, *cache, lines=b"[1]\n", program=REAL)
    assert (done.returncode, done.stdout) == (2, b"")
    assert str(model) in one_line(done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "infer"])
def test_a_corrupt_model_is_told_in_one_line(tmp_path: Path, cache: list[str], command: str) -> None:
    model = arithmetic_model(tmp_path / "model")  # whose graph file is no protobuf
    arguments = ["--model", f"m={model}", "--listen", "127.0.0.1:0"] if command == "serve" else [str(model)]
    done = rowserve(command, *arguments, *cache, lines=b"[1]\n", program=REAL)
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr
    if command == "serve":
        first, said = said.split(b"\n", 1)
        assert first.startswith(b"rowserve: loading m ")
    assert str(model) in one_line(said)


def test_one_broken_model_does_not_keep_the_others_from_serving(tmp_path: Path, cache: list[str]) -> None:
    good = arithmetic_model(tmp_path / "good")
    bad = tmp_path / "bad" / "1"
    bad.mkdir(parents=True)
    with server("--model", f"good={good}", "--model", f"bad={bad.parent}", *cache) as url:
        states = {model["name"]: model["state"] for model in json.loads(urlopen(f"{url}/readyz").read())["models"]}
    assert states == {"good": "ready", "bad": "broken"}


def test_a_model_that_never_ends_its_loading_keeps_neither_the_others_nor_the_end(
    tmp_path: Path, cache: list[str]
) -> None:
    for name in ("endless", "good"):
        arithmetic_model(tmp_path / "models" / name)
    settings = tmp_path / "rowserve.toml"
    settings.write_text('[limits]\nload = "1s"\n')
    listen = ("--listen", "127.0.0.1:0", "--config", str(settings))
    with started("serve", *listen, "--models", str(tmp_path / "models"), *cache) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.decode())
            if address := SERVING.search(said[-1]):
                break
        assert address is not None, said
        ready = json.loads(urlopen(f"{address[1]}/readyz").read())
        process.terminate()
        _, rest = process.communicate(timeout=END_SECONDS)
    states = {model["name"]: model["state"] for model in ready["models"]}
    assert states == {"endless": "broken", "good": "ready"}
    assert any("did not load within limits.load (1s)" in line for line in said)
    assert process.returncode == 0, rest


def test_a_server_listens_on_several_addresses(tmp_path: Path) -> None:
    model = arithmetic_model(tmp_path / "m")
    more = ("--listen", "127.0.0.1:0,profile=kserve", "--model", f"m={model}", "--cache", str(tmp_path / "cache"))
    with started("serve", "--listen", "127.0.0.1:0", *more, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        told = [line.decode() for line in islice(process.stderr, 4)][2:]  # first that the model loads, and is ready
        assert "(profile kserve)" in told[1]
        for line in told:
            url = line.split(" on ")[1].split()[0]
            assert json.loads(urlopen(f"{url}/readyz").read())["ready"]
        process.terminate()
        assert process.wait(30) == 0


def test_grpc_has_an_address_of_its_own(tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc")
    model = arithmetic_model(tmp_path / "m")
    more = ("--grpc", "127.0.0.1:0", "--model", f"m={model}", "--cache", str(tmp_path / "cache"))
    with started("serve", "--listen", "127.0.0.1:0", *more, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        told = [line.decode() for line in islice(process.stderr, 4)][2:]
        with grpc.insecure_channel(told[1].split("grpc://")[1].strip()) as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30) == b"\x08\x01"
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a whole process is patient, or nobody")
def test_the_engines_threads_give_way_to_those_that_answer(tmp_path: Path, digits: Path) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--models", str(digits_models(digits, tmp_path)), "--cache", str(tmp_path)]
    with started("serve", *arguments, program=REAL, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert any(SERVING.search(line.decode()) for line in process.stderr)
        threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
        patience = {}
        for thread in threads:
            with suppress(ProcessLookupError):  # the one that has loaded the model may be about to end
                patience[thread] = os.getpriority(os.PRIO_PROCESS, thread)
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert patience[process.pid] == ours
        assert set(patience.values()) == {ours, min(ours + PATIENCE, 19)}
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [("8080", "HOST:PORT"), ("127.0.0.1:0,profile=grpc", "no profile 'grpc'"), ("127.0.0.1:0,port=1", "HOST:PORT")],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str, complaint: str) -> None:
    model = arithmetic_model(tmp_path / "m")
    ran = rowserve("serve", "--listen", listen, "--model", f"m={model}")
    assert ran.returncode == 2
    assert complaint in one_line(ran.stderr)


def test_a_long_example_row_is_made_by_the_line_itself() -> None:
    inputs = (TensorSpec("it's", "float32", (30, 2)), TensorSpec("b", "bool", (1,)), TensorSpec('"', "string", ()))
    for signature in (Signature("s", inputs, ()), Signature("s", inputs[:1], ())):
        line = send_row("http://h/rows/m?signature=s", signature)
        assert line.endswith(" | curl --data-binary @- 'http://h/rows/m?signature=s'")
        made = subprocess.run(["sh", "-c", line.partition(" | curl")[0]], capture_output=True, check=True).stdout
        assert json.loads(made) == json.loads(row_of_ones(signature))


@pytest.mark.slow
def test_it_tells_of_each_model_and_prints_requests_that_work_as_they_stand(tmp_path: Path, digits: Path) -> None:
    models = digits_models(digits, tmp_path)
    shutil.copytree(digits, models / "plain")
    (models / "plain" / "rowserve.toml").unlink()  # so nothing is known of pictures: its line sends a row
    arguments = ["--listen", "127.0.0.1:0", "--models", str(models), "--cache", str(tmp_path / "cache")]
    with started("serve", *arguments, program=REAL, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        said: list[str] = []
        while len(tried := [line.strip() for line in said if "curl " in line]) < 2:
            said.append(process.stderr.readline().decode())
            assert said[-1], said
        for name in ("digits", "plain"):
            assert f"rowserve: loading {name} version 1 from {models / name / '1'}\n" in said
            assert any(re.fullmatch(rf"rowserve: {name} version 1 is ready after \d+\.\d s\n", line) for line in said)
        process.send_signal(signal.SIGHUP)
        for line in tried:
            done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
            assert '"computed"' in done.stdout
        process.terminate()
        assert process.wait(30) == 0
