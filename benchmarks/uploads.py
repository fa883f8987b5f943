"""EfficientNet-Lite0 behind HTTP picture uploads, every picture new, against what the cores could do at best.

The limit is cores / (graph + decode core time a row), both measured alone in the same run; the cores that the client
itself takes are not the server's to use, and are taken off.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.real_model import SHAPES, bare_session, model_folder
from benchmarks.served import Client, Served, form
from benchmarks.table import Figure, emit
from rowserve.tools.photos import sample_photos

NAME = "efficientnet_lite0"
CONNECTIONS = 16
A_REQUEST = 4
SIDE = 320


def pictures(count: int, seed: int) -> list[bytes]:
    """Different JPEGs of SIDE x SIDE, cut out of the sample photos."""
    from PIL import Image

    random = np.random.default_rng(seed)
    photos = [Image.open(photo.path).convert("RGB") for photo in sample_photos()]
    photos = [photo.resize((photo.width * 2, photo.height * 2)) if min(photo.size) < 400 else photo for photo in photos]
    found = []
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = random.integers(0, photo.width - SIDE + 1), random.integers(0, photo.height - SIDE + 1)
        turned = photo.crop((left, top, left + SIDE, top + SIDE)).rotate(float(random.random()) * 2)
        file = io.BytesIO()
        turned.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def post_all(port: int, count: int, seed: int) -> tuple[float, float]:
    """In the client's process: wall seconds for all pictures, and the core seconds that the client used meanwhile."""
    files = pictures(count, seed)
    bodies = iter([form(files[at : at + A_REQUEST]) for at in range(0, count, A_REQUEST)])

    def post(client: Client) -> None:
        for body, content_type in bodies:
            status, answer = client.ask("POST", f"/images/{NAME}?top=1", body, content_type)
            assert status == 200, answer
            assert answer.count(b'"cache":"computed"') == A_REQUEST, answer

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        began, used = time.perf_counter(), time.process_time()
        for done in [threads.submit(post, Client(port)) for _ in range(CONNECTIONS)]:
            done.result()
        return time.perf_counter() - began, time.process_time() - used


class Alone:
    """The two parts of the work that cannot be saved, each alone."""

    def __init__(self) -> None:
        from rowserve.graphs.signature import Signature, TensorSpec
        from rowserve.handlers.pictures import picture_decoders
        from rowserve.server.card import read_card

        self._session = bare_session(NAME)
        self._batch = np.random.default_rng(0).random((32, *SHAPES[NAME]), np.float32)
        self._session(self._batch)
        spec = TensorSpec("images", "float32", SHAPES[NAME])
        card = read_card(model_folder(NAME) / NAME).picture
        self._decoder: Any = picture_decoders(card, {"": Signature("", (spec,), ())})[""]

    def graph(self, batches: int) -> float:
        """Core seconds a row of session calls at batches of 32."""
        began = time.process_time()
        for _ in range(batches):
            self._session(self._batch)
        return (time.process_time() - began) / (batches * 32)

    def decode(self, files: Sequence[bytes]) -> float:
        """Core seconds a picture."""
        began = time.process_time()
        for file in files:
            self._decoder.decode(file)
        return (time.process_time() - began) / len(files)


def figures(quick: bool) -> Iterator[Figure]:
    """One."""
    turns, count, batches = (1, 96, 2) if quick else (5, 640, 6)
    cores = len(os.sched_getaffinity(0))
    alone, sample = Alone(), pictures(100, 0)
    shares, graph, decode, served_rows, spent = [], [], [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Served("--models", str(model_folder(NAME)), "--cache", folder) as server,
        ProcessPoolExecutor(1, get_context("spawn")) as client,
    ):
        client.submit(post_all, server.port, 64, 1).result()
        for turn in range(turns):
            graph.append(alone.graph(batches))
            decode.append(alone.decode(sample))
            used = server.core_seconds()
            wall, client_cores = client.submit(post_all, server.port, count, 2 + turn).result()
            spent.append((server.core_seconds() - used) / count)
            shares.append(count * (graph[-1] + decode[-1]) / (cores * wall - client_cores))
            served_rows.append(count / wall)
    ms = {name: statistics.median(each) * 1e3 for name, each in (("g", graph), ("d", decode), ("s", spent))}
    detail = (
        f"{statistics.median(served_rows):.1f} rows/s; core ms a row: graph {ms['g']:.1f} + decode {ms['d']:.1f}, "
        f"the server in all {ms['s']:.1f}"
    )
    what = "EfficientNet-Lite0 through HTTP uploads, against cores / (graph + decode core time a row)"
    yield Figure(what, statistics.median(shares), "x", 0.85, detail, at_least=True)


if __name__ == "__main__":
    emit(figures)
