"""`rowserve bench` as a process, on a real server."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from urllib.request import urlopen

import multipart
import pytest
from click.testing import CliRunner

from rowserve.tools.bench_forms import BOUNDARY, address, upload_form
from rowserve.tools.cli import main
from rowserve.tools.options import Refused
from tests.tools.processes import REAL, SERVING, arithmetic_model, one_line, rows, rowserve, server, started


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    model = f"sums={arithmetic_model(folder / 'sums')}"
    with server("--model", model, "--cache", str(folder / "cache"), "--cache-size", "64MiB") as address:
        yield address


def bench(running: str, *arguments: str, says: str = "") -> dict:
    short = ("--seconds", "0.5", "--connections", "2", "--json")
    done = rowserve("bench", "sums", "--server", running, *short, *arguments, program=REAL)
    assert done.returncode == 0, done.stderr
    assert says in one_line(done.stderr)
    found = json.loads(done.stdout)
    assert found["requests"] > 0
    assert found["errors"] == {}
    assert found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
    return dict(found)


@pytest.mark.parametrize("protocol", ["open-inference", "rows"])
def test_made_up_rows_are_new(running, protocol):
    found = bench(running, "--rows", "3", "--protocol", protocol, "--keep")
    assert found["rows"] == {"computed": 3 * found["requests"]}


def kept(running: str) -> int:
    """The rows in the server's cache, once all that was answered is on the disk."""
    urlopen(f"{running}/rows/sums?sync=1", b"[0, 0, 0, 0]\n").read()
    found = re.search(r"^rowserve_cache_rows (\S+)$", urlopen(f"{running}/metrics").read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def until_kept(running: str, wanted: Callable[[int], bool]) -> None:
    """Asks until the rows in the server's cache are as wanted."""
    end = time.monotonic() + 60  # a hang is a failure
    while not wanted(kept(running)):
        assert time.monotonic() < end, kept(running)
        time.sleep(0.1)


def test_rows_to_be_kept_stay(running):
    before = kept(running)
    found = bench(running, "--keep", says="fills the server's cache")
    assert kept(running) == before + found["requests"]


@pytest.mark.parametrize("protocol", ["open-inference", "rows"])
def test_made_up_rows_are_hits_and_then_none_is_left_even_when_the_bench_is_killed(running, protocol):
    before = kept(running)
    short = ("--repeat", "0.9", "--distinct", "20", "--protocol", protocol)
    found = bench(running, *short, says="are gone from the server's cache some seconds after")
    assert found["rows"]["hit"] > found["rows"]["computed"] > 0
    there = kept(running)
    assert there > before
    with started("bench", "sums", "--server", running, "--seconds", "60", *short, program=REAL) as killed:
        until_kept(running, lambda now: now > there)
        killed.kill()
    until_kept(running, lambda now: now == before)


def test_a_server_that_was_killed_forgets_them_when_it_starts_again(tmp_path):
    cache = ("--cache", str(tmp_path / "cache"), "--cache-size", "64MiB")
    serve = ("serve", "--listen", "127.0.0.1:0", "--model", f"sums={arithmetic_model(tmp_path / 'sums')}", *cache)
    with started(*serve) as process:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := SERVING.search(line.decode())))
        bench(address, "--rows", "3", "--keep", "--rate", "20")
        to_stay = kept(address)
        bench(address, "--repeat", "0.9")
        assert kept(address) > to_stay
        process.kill()
    with server(*serve[3:]) as address:
        until_kept(address, lambda now: now == to_stay)
        bench(address)
    report = rowserve("cache", "stat", "--json", *cache[:2], program=REAL)
    assert json.loads(report.stdout)["rows"] == to_stay  # forgotten when it stopped, too


def test_repeated_rows_that_are_kept_become_hits_again_in_the_next_run(running):
    first = bench(running, "--keep", "--repeat", "1", "--distinct", "5")
    assert first["rows"]["computed"] <= 5
    assert first["rows"].keys() <= {"hit", "computed", "collapsed"}
    assert bench(running, "--keep", "--zipf", "1", "--distinct", "5")["rows"].keys() == {"hit"}


def test_rows_of_a_file_come_in_turn_at_a_rate(running, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(rows(7, first=100_000))
    found = bench(running, "--input", str(tmp_path / "rows.jsonl"), "--rate", "100", "--plot", str(tmp_path / "p.svg"))
    assert found["requests"] + found["unsent"] <= 52
    assert found["rows"].get("computed", 0) + found["rows"].get("collapsed", 0) >= 7 - found["unsent"]
    assert (tmp_path / "p.svg").read_text().startswith("<svg")


def test_a_model_that_is_not_there_is_told(running):
    done = rowserve("bench", "nothing", "--server", running, program=REAL)
    assert done.returncode == 2
    assert "404" in one_line(done.stderr)


def test_pictures_that_are_refused_are_told_by_status(running, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = rowserve(
        *("bench", "sums", "--server", running, "--seconds", "0.3", "--json"),
        *("--protocol", "images", "--input", str(tmp_path)),
        program=REAL,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"].keys() == {"422"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--server", "https://x"], "http://HOST:PORT"),
        (["--server", "http://127.0.0.1:1"], "is it running"),
        (["--repeat", "0.5", "--zipf", "1", "--protocol", "rows", "--input", __file__], "one of them"),
        (["--protocol", "images"], "--input"),
        (["--plot", "latency.gif"], ".svg"),
        (["--repeat", "1.5"], "--repeat"),
        (["--rows", "0"], "--rows"),
    ],
)
def test_what_cannot_be_is_refused(arguments, word):
    done = CliRunner().invoke(main, ["bench", "m", *arguments])
    assert done.exit_code == 2
    assert word in done.stderr


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080, "127.0.0.1:8080")),
        ("http://host/", ("host", 80, "host")),
        ("http://[::1]:80", ("::1", 80, "[::1]:80")),
        ("http://host:0", None),
        ("http://host:99999", None),
        ("http://host/path", None),
        ("host:80", None),
    ],
)
def test_a_servers_address(url, parts):
    if parts:
        assert address(url) == parts
    else:
        with pytest.raises(Refused):
            address(url)


def test_an_upload_is_a_form_with_a_file_for_each_row():
    files = [(b"one\r\n--" + BOUNDARY[:5].encode(),), (b"",)]
    head, _, body = upload_form("h", "m")(files).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    parts = list(multipart.MultipartParser(io.BytesIO(body), BOUNDARY, len(body)))
    assert [part.raw for part in parts] == [b"one\r\n--" + BOUNDARY[:5].encode(), b""]
