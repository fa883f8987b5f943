"""A server of the digits model, which takes pictures and has labels, as a process that real clients talk to."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from rowserve.graphs.rows import Array
from rowserve.tools.digits import digit_scans
from tests.tools.processes import END_SECONDS, REAL, started

CARD = """\
[picture]
colour = "grey"
range = [0, 16]

[labels]
output = "probabilities"
"""
ADDRESS = re.compile(r" on (?:grpc://)?(\S*:\S+)")


def digits_models(digits: Path, home: Path, *names: str) -> Path:
    """A folder with the model under each of the names, for --models."""
    for name in names or ("digits",):
        shutil.copytree(digits, home / "models" / name)
        (home / "models" / name / "rowserve.toml").write_text(CARD, encoding="utf-8")
    return home / "models"


@contextmanager
def digits_server(models: Path, *profiles: str, grpc: bool = False) -> Iterator[list[str]]:
    """A server of these models, listening once for each profile: the URLs, and last, with `grpc`, that address."""
    listen = [each for profile in profiles for each in ("--listen", f"127.0.0.1:0,profile={profile}")]
    listen += ["--grpc", "127.0.0.1:0"] if grpc else []
    settings = ["--models", str(models), "--cache", str(models.parent / "cache")]
    with started("serve", *listen, *settings, program=REAL, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        urls: list[str] = []
        said = []
        for line in process.stderr:
            said.append(line.decode())
            if found := ADDRESS.search(said[-1]):
                urls.append(found[1])
            if len(urls) == len(profiles) + grpc:
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(said)}")
        yield urls
        process.terminate()
        _, rest = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0, rest
        assert b"Traceback" not in rest, rest


def scan(digit: int, which: int = 0) -> Array:
    """One of the scans [8, 8] of a digit, which the model is sure of."""
    scans, digits = digit_scans()
    found: Array = scans[np.flatnonzero(digits == digit)[which]]
    return found


def picture(pixels: Array, kind: str = "PNG") -> bytes:
    """A scan as a picture's file."""
    out = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(out, kind)
    return out.getvalue()
