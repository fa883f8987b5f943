"""`rowserve` as processes: run to their end, or talked to while they run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REAL = "rowserve.tools.cli"
ARITHMETIC = "tests.tools.arithmetic_rowserve"
TOLD = re.compile(r"(\d+) rows: (\d+) hits, (\d+) collapsed, (\d+) computed, (\d+) bypassed, (\d+) failed; ")
SERVING = re.compile(r"serving .* on (http://\S+)")
END_SECONDS = 120  # a hang is a failure


def command(*arguments: str, program: str = ARITHMETIC) -> list[str]:
    return [sys.executable, "-m", program, *arguments]


def environment(broken: bool = False) -> dict[str, str]:
    found = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**found, "ROWSERVE_TEST_BROKEN": "1"} if broken else found


def rowserve(
    *arguments: str, lines: bytes = b"", program: str = ARITHMETIC, broken: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Runs it to its end."""
    return subprocess.run(
        command(*arguments, program=program),
        input=lines,
        capture_output=True,
        env=environment(broken),
        timeout=END_SECONDS,
        check=False,
    )


@contextmanager
def started(*arguments: str, program: str = ARITHMETIC, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs it while the test talks to it; killed at the end if it still runs."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    with subprocess.Popen(command(*arguments, program=program), env=environment(), **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server(*arguments: str, program: str = ARITHMETIC) -> Iterator[str]:
    """A server on a free port: its address."""
    with started("serve", "--listen", "127.0.0.1:0", *arguments, program=program, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if address := SERVING.search(line.decode()):
                yield address[1]
                process.terminate()
                _, rest = process.communicate(timeout=END_SECONDS)
                assert process.returncode == 0, rest
                return
        raise AssertionError("the server did not start")


def told(stderr: bytes) -> dict[str, int]:
    """The summary: rows by outcome, those that are not 0."""
    found = TOLD.search(stderr.decode())
    assert found is not None, stderr
    names = ("rows", "hit", "collapsed", "computed", "bypassed", "failed")
    return {name: int(number) for name, number in zip(names, found.groups(), strict=True) if int(number)}


def one_line(stderr: bytes) -> str:
    """What a command says that cannot start: one line, without a traceback."""
    text = stderr.decode()
    assert text.endswith("\n"), text
    assert len(text.splitlines()) == 1, text
    assert "Traceback" not in text
    return text.strip()


def arithmetic_model(folder: Path) -> Path:
    """A folder that passes for a model's until somebody loads it."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "saved_model.pb").write_bytes(b"arithmetic")
    return folder


def rows(count: int, first: int = 0) -> bytes:
    """JSON rows of the arithmetic model, each of its own."""
    return b"".join(b"[%d,%d,%d,0.5]\n" % (i, i % 7, 2 * i) for i in range(first, first + count))
