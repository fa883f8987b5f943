"""Pictures uploaded by forms, drawn by Zipf's law from a pool: a load in a process of its own.

    python -m benchmarks.side_by_side.uploads SPEC.json

SPEC has host, port, target, field, headers, folder (of the pictures, in order), connections, and either `requests` (a
number, drawn by Zipf 1.0), or `seconds` (of pictures in turn), or neither: each picture once. Printed is a JSON object.
"""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side.rows import MOBILENET
from rowserve.tools.bench_forms import upload_form
from rowserve.tools.bench_load import Load
from rowserve.tools.bench_report import outcomes
from rowserve.tools.bench_rows import zipf
from rowserve.tools.run_reactor import ReactorRun

FOREVER = 3600.0
EXPONENT = 1.0


def save_crops(folder: Path, count: int, seed: int) -> None:
    """JPEGs of the size that the model takes, each another piece of a sample photo."""
    from PIL import Image

    from rowserve.tools.photos import sample_photos

    random = np.random.default_rng(seed)
    side = MOBILENET.shape[0]
    photos = [Image.open(photo.path).convert("RGB") for photo in sample_photos()]
    photos = [photo.resize((photo.width * 2, photo.height * 2)) if min(photo.size) < 400 else photo for photo in photos]
    folder.mkdir(parents=True)
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = (int(random.integers(0, size - side + 1)) for size in photo.size)
        turned = photo.crop((left, top, left + side, top + side)).rotate(float(random.random()) * 2)
        file = io.BytesIO()
        turned.save(file, "JPEG", quality=90)
        (folder / f"{index:06}.jpg").write_bytes(file.getvalue())


def load(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs it."""
    files = [(path.read_bytes(),) for path in sorted(Path(spec["folder"]).iterdir())]
    form = upload_form(f"{spec['host']}:{spec['port']}", spec["target"], spec["field"], spec["headers"])
    places: Iterator[int] = iter(range(len(files)))
    if "seconds" in spec:
        places = itertools.cycle(places)
    if "requests" in spec:
        places = itertools.islice(zipf(EXPONENT, len(files), np.random.default_rng(5)), spec["requests"])
    run = ReactorRun()
    clock_end: list[float] = []
    bodies = (form([files[place]]) for place in places)
    load = Load(run.reactor, bodies, spec.get("seconds", FOREVER))

    async def work() -> int:
        began = load.clock()
        load.begin(spec["host"], spec["port"], spec["connections"])
        await load.done
        clock_end.append(load.clock() - began)
        return 0

    run.run(work)
    return {
        "answers": load.latency.total,
        "bad": load.latency.total - load.statuses[200] + sum(load.faults.values()),
        "seconds": clock_end[0],
        "p50": load.latency.quantile(0.5),
        "rows": outcomes(load.caches, 1),
    }


def run(**spec: Any) -> dict[str, Any]:
    """The same from another process."""
    told = json.dumps({"host": "127.0.0.1", "connections": 32, "field": "file", "headers": {}, **spec})
    command = [sys.executable, "-m", "benchmarks.side_by_side.uploads", told]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(load(json.loads(sys.argv[1]))))
