"""The walk that looks for damage while a cache is in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from rowserve.cache.background_walk import BackgroundWalk
from rowserve.cache.integrity import mark_left
from tests.cache.stepping import MIB, SteppedCache, key

BODY = bytes(range(250)) * 16


class Walked:
    """A walk of a folder, and what it told; each pause is over at once, until `rounds` walks were made."""

    def __init__(self, rows: Path, program: str = "", rounds: int = 1) -> None:
        self.told: list[str] = []
        self.forgotten: list[bytes] = []
        command = [sys.executable, "-c", program] if program else None
        self.pauses: list[float] = []
        self.walk = BackgroundWalk(
            rows, self.told.append, self.forgotten.append, lambda call: call(), 30.0, 5000.0, 600.0, command
        )

        def wait(pause: float) -> bool:
            self.pauses.append(pause)
            return len(self.pauses) > rounds

        self.walk._stopped.wait = wait  # type: ignore[method-assign,assignment]
        self.walk.run()


def filled(folder: Path) -> SteppedCache:
    stepped = SteppedCache(folder, 8 * MIB)
    stepped.cache.keep([key(i) for i in range(50)], [BODY] * 50)
    stepped.settle()
    return stepped


def test_a_good_file_is_walked_beside_its_users_and_nothing_is_told(tmp_path):
    stepped = filled(tmp_path)
    walked = Walked(tmp_path / "rows", rounds=2)
    assert (walked.told, walked.forgotten) == ([], [])
    stepped.close()


def test_a_damaged_record_is_forgotten(tmp_path):
    stepped = filled(tmp_path)
    data = tmp_path / "rows" / "data.mdb"
    at = data.read_bytes().index(BODY)
    with data.open("r+b") as file:
        file.seek(at)
        file.write(b"?")
    walked = Walked(tmp_path / "rows")
    assert len(walked.forgotten) == 1
    assert walked.told == []
    stepped.cache.forget(walked.forgotten[0])
    stepped.settle()
    assert stepped.cache.lookup(walked.forgotten) == [None]
    assert Walked(tmp_path / "rows").forgotten == []
    stepped.close()


def test_damage_ends_the_use_of_the_file_and_the_next_start_sets_it_aside(tmp_path):
    stepped = filled(tmp_path)
    walked = Walked(tmp_path / "rows", "import sys; sys.exit('a page is used twice')", rounds=2)
    why, _ = walked.told
    assert walked.pauses == [30.0, 5000.0, 5000.0]  # another file may take its place
    assert "data.mdb is damaged: a page is used twice" in why
    assert "a page is used twice" in mark_left(tmp_path / "rows")  # at once, whatever becomes of this process
    stepped.cache.found_damaged(why)
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.stats.state == "failing"
    stepped.close()
    again = SteppedCache(tmp_path, 8 * MIB)
    assert "set aside" in again.lines[0]
    again.close()


def test_a_damaged_description_is_never_deleted_but_ends_the_use_of_the_file(tmp_path):
    stepped = filled(tmp_path)
    tear_about(tmp_path)
    walked = Walked(tmp_path / "rows")
    assert walked.forgotten == []
    assert "what the file says of itself does not check" in walked.told[0]
    stepped.close()


def test_a_damaged_description_fails_no_start(tmp_path):
    filled(tmp_path).close()
    tear_about(tmp_path)
    again = SteppedCache(tmp_path, 8 * MIB)
    assert again.stats.state == "ok"
    assert "set aside" in again.lines[0]
    again.cache.keep([key(1)], [BODY])
    again.settle()
    again.close()
    after = SteppedCache(tmp_path, 8 * MIB)
    assert after.lines == []
    assert after.cache.lookup([key(1)]) == [BODY]
    after.close()


def tear_about(folder: Path) -> None:
    """Spoils what the file says of itself, behind the back of everybody."""
    data = folder / "rows" / "data.mdb"
    status = data.stat()
    content = data.read_bytes()
    at = content.index(b'"secret"')
    while at >= 0:
        content = content[:at] + b'"secreT"' + content[at + 8 :]
        at = content.find(b'"secret"')
    with data.open("r+b") as file:
        file.write(content)
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_child_that_dies_tells_of_damage(tmp_path):
    walked = Walked(tmp_path, "import os; os.kill(os.getpid(), 11)")
    assert "reading it ends with signal 11" in walked.told[0]


@pytest.mark.parametrize("end", ["sys.exit(2)", "os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 9)"])
def test_a_walk_that_could_not_be_made_is_made_soon_again_and_tells_of_no_damage(tmp_path, end):
    note = tmp_path / "walks"
    walked = Walked(tmp_path, f"import os, sys; open({str(note)!r}, 'a').write('x'); {end}", rounds=3)
    assert (walked.told, note.read_text()) == ([], "xxx")
    assert walked.pauses == [30.0, 600.0, 600.0, 600.0]
    assert mark_left(tmp_path) == ""


def test_a_walk_that_was_made_is_made_again_after_a_day(tmp_path):
    stepped = filled(tmp_path)
    assert Walked(tmp_path / "rows", rounds=2).pauses == [30.0, 5000.0, 5000.0]
    stepped.close()


def test_damage_of_a_file_that_was_replaced_meanwhile_is_not_that_of_the_new_one(tmp_path):
    for name in ("data.mdb", "fresh"):
        (tmp_path / name).write_bytes(b"")
    replace = f"import os, sys; os.replace({str(tmp_path / 'fresh')!r}, {str(tmp_path / 'data.mdb')!r})"
    walked = Walked(tmp_path, f"{replace}; sys.exit('a page is used twice')")
    assert (walked.told, walked.pauses) == ([], [30.0, 600.0])
    assert mark_left(tmp_path) == ""


def test_no_child_can_be_had_now(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=BlockingIOError(11, "Resource temporarily unavailable")))
    walked = Walked(tmp_path, "...", rounds=2)
    assert (walked.told, walked.pauses) == ([], [30.0, 600.0, 600.0])


def test_what_a_child_says_is_told_for_each_key(tmp_path):
    said = json.dumps({"checked": 3, "damaged": [key(1).hex(), key(2).hex()]})
    assert Walked(tmp_path, f"print({said!r})").forgotten == [key(1), key(2)]


def test_a_stop_ends_a_walk_that_runs_and_one_that_waits(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"import signal; open({str(fifo)!r}, 'w').close(); signal.pause()"
    told: list[str] = []
    for first in (0.0, 1000.0):
        walk = BackgroundWalk(
            tmp_path,
            told.append,
            lambda key: None,
            lambda call: call(),
            first,
            command=[sys.executable, "-c", program],
        )
        thread = threading.Thread(target=walk.run, daemon=True)
        thread.start()
        if not first:
            fifo.read_text()  # until the child is there
        walk.stop()
        thread.join(60)
        assert not thread.is_alive()
    assert told == []
