from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rowserve.handlers.items import Outcome
from rowserve.handlers.lines import Line
from rowserve.handlers.ndjson import Mode
from rowserve.handlers.problem import Problem
from rowserve.tools.feed import Chunk
from rowserve.tools.groups import Columns, Lines
from rowserve.tools.options import Refused
from rowserve.tools.remote import model_path, synced
from rowserve.tools.remote_answers import line_reply, picture_reply
from rowserve.tools.remote_chunks import RemoteParser


def test_neighbours_of_one_kind_share_a_request(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    paths = [str(tmp_path / name).encode() for name in ("a.jpg", "b.jpg", "c.jpg")]
    lines: list[Line] = [b"[1]", b" 2 ", *paths, b"", Problem(413, "long"), b'"x"', b"{bad"]
    chunks = list(RemoteParser(100).chunks([Lines(lines, Mode.AUTO)]))
    kinds = [(c.first, c.rows, c.text, list(c.uploads), [p.status for p in c.problems]) for c in chunks]
    assert kinds == [
        (1, 2, b"[1]\n2\n", [], []),
        (3, 2, b"", [b"a.jpg", b"b.jpg"], []),
        (5, 1, b"", [], [404]),
        (6, 1, b"", [], [400]),
        (7, 1, b"", [], [413]),
        (8, 2, b'"x"\n{bad\n', [], []),
    ]


def test_a_request_has_no_more_than_32_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    group = Lines([str(tmp_path / "a.jpg").encode()] * 70, Mode.PATHS)
    assert [chunk.rows for chunk in RemoteParser(100).chunks([group])] == [32, 32, 6]


def test_arrays_become_lines_with_every_bit() -> None:
    numbers = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    (nameless,) = RemoteParser(0).chunks([Columns({"": numbers}, 5)])
    back = np.array([json.loads(line) for line in nameless.text.splitlines()], np.float32)
    assert back.tobytes() == numbers.tobytes()
    (named,) = RemoteParser(0).chunks([Columns({"n": np.array([1, 2]), "s": np.array([b"a", b"b"])}, 2)])
    assert [json.loads(line) for line in named.text.splitlines()] == [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]


def printed(reply: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in reply.encode().splitlines()]  # type: ignore[attr-defined]


def test_a_servers_lines_get_our_numbers() -> None:
    body = (
        b'{"line":1,"cache":"hit","outputs":{"y":1}}\n'
        b'{"line":2,"error":{"status":400,"title":"Bad JSON","detail":"row"}}\n'
        b'{"line":3,"cache":"computed","outputs":{"y":2}}\n'
    )
    reply = line_reply(Chunk(101, 3, 0), 200, body)
    assert [line["line"] for line in printed(reply)] == [101, 102, 103]
    assert printed(reply)[0]["outputs"] == {"y": 1}
    assert reply.outcomes == {Outcome.HIT: 1, Outcome.FAILED: 1, Outcome.COMPUTED: 1}
    assert [(at, problem.status) for at, problem in reply.faults.items()] == [(1, 400)]


def test_lines_that_never_came_have_an_error() -> None:
    reply = line_reply(Chunk(1, 3, 0), 200, b'{"line":1,"cache":"hit","outputs":{}}\n')
    assert [("error" in line, line["line"]) for line in printed(reply)] == [(False, 1), (True, 2), (True, 3)]
    assert reply.outcomes[Outcome.FAILED] == 2


@pytest.mark.parametrize("body", [b'{"status":404,"title":"Not Found","detail":"no model"}', b"<html>", b""])
def test_a_refused_request_fails_all_its_rows(body: bytes) -> None:
    for reply in (line_reply(Chunk(5, 2, 0), 404, body), picture_reply(Chunk(5, 2, 0), 404, body)):
        assert [(line["line"], line["error"]["status"]) for line in printed(reply)] == [(5, 404), (6, 404)]  # type: ignore[index]
        assert reply.outcomes == {Outcome.FAILED: 2}


def test_pictures_keep_the_names_we_know_them_by() -> None:
    rows = [{"name": "0", "cache": "hit", "outputs": {}}, {"name": "1", "error": {"status": 422, "detail": "no"}}]
    chunk = Chunk(7, 2, 0, names=["a.jpg", "b\udcff.jpg"])
    reply = picture_reply(chunk, 200, json.dumps({"rows": rows}).encode())
    assert [(line["line"], line["input"]) for line in printed(reply)] == [(7, "a.jpg"), (8, "b?.jpg")]
    assert reply.outcomes == {Outcome.HIT: 1, Outcome.FAILED: 1}


@pytest.mark.parametrize(
    ("model", "path"),
    [("m", "m"), ("m/3", "m/versions/3"), ("a b", "a%20b"), ("../x", None), ("", None), ("m/x", None)],
)
def test_a_model_is_named_as_the_server_does(model: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(Refused, match="NAME/VERSION"):
            model_path(model)
    else:
        assert model_path(model) == path


def test_a_sync_that_failed_is_told() -> None:
    assert synced((200, b"")) == ""
    assert synced((200, b'{"line":1,"error":{"status":500,"title":"Not kept","detail":"disk full"}}\n')) == "disk full"
    assert "503" in synced((503, b"busy"))
