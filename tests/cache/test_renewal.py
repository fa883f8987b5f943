"""A cache whose file is found damaged while it serves: a new one takes its place."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from unittest.mock import Mock

import lmdb
import pytest

from rowserve.cache import integrity
from rowserve.cache.integrity import mark_left
from rowserve.cache.opening import Opened
from rowserve.cache.renewal import AGAIN_SECONDS
from tests.cache.stepping import MIB, SteppedCache, child, heard, key

BODY = bytes(range(250)) * 16
LIMITS_PAUSE = 2.0


@pytest.fixture
def stepped(tmp_path):
    stepped = SteppedCache(tmp_path, 8 * MIB)
    stepped.cache.keep([key(i) for i in range(50)], [BODY] * 50)
    stepped.settle()
    yield stepped
    stepped.close()


def cut(stepped: SteppedCache, folder: Path) -> None:
    """The file ends early, and a read has noticed it."""
    os.truncate(folder / "rows" / "data.mdb", 8192)
    stepped.store._look_at = 0.0
    assert stepped.cache.lookup([key(1)]) == [None]
    assert stepped.stats.state == "failing"


def corrupt(stepped: SteppedCache, folder: Path) -> None:
    """LMDB says so."""
    real, stepped.cache._read = stepped.cache._read, Mock(side_effect=lmdb.CorruptedError("a page"))
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.cache._read = real


def walked(stepped: SteppedCache, folder: Path) -> None:
    """The background walk says so."""
    stepped.cache.found_damaged("a page is used twice")


def works(stepped: SteppedCache, number: int) -> None:
    """It keeps and finds."""
    stepped.now += LIMITS_PAUSE
    stepped.cache.keep([key(number)], [b"anew"])
    stepped.settle()
    assert stepped.writer.pending == {}
    assert stepped.cache.lookup([key(number)]) == [b"anew"]
    assert stepped.stats.state == "ok"


@pytest.mark.parametrize("damage", [cut, corrupt, walked])
def test_a_damaged_file_is_set_aside_while_serving(stepped, tmp_path, damage):
    damage(stepped, tmp_path)
    old = stepped.store._identity
    stepped.step()  # the writer opens a new file
    (aside,) = tmp_path.glob("rows.bad-*")
    assert mark_left(aside)
    assert stepped.cache.lookup([key(1)]) == [None]  # the reactor has not taken it over yet
    stepped.cache.keep([key(2)], [BODY])
    stepped.step()  # and meanwhile nothing is written
    assert stepped.stats.failed == 1
    stepped.react()
    assert stepped.store._identity != old
    assert stepped.stats.state == "ok"
    works(stepped, 3)
    assert stepped.cache.lookup([key(1), key(2)]) == [None, None]
    assert [line for line in stepped.lines if "set aside" in line]
    assert stepped.lines[-1] == "cache: works again"


def test_what_came_after_is_there_at_the_next_start(tmp_path):
    stepped = SteppedCache(tmp_path, 8 * MIB)
    corrupt(stepped, tmp_path)
    stepped.step()
    stepped.react()
    works(stepped, 3)
    stepped.close()
    assert integrity.is_clean(tmp_path / "rows")
    again = SteppedCache(tmp_path)
    assert again.lines == []
    assert again.cache.lookup([key(3)]) == [b"anew"]
    again.close()


def test_the_mark_is_left_at_once_so_that_a_kill_changes_nothing(stepped, tmp_path):
    other = Opened(tmp_path)  # so it cannot be set aside yet
    corrupt(stepped, tmp_path)
    stepped.step()
    assert "a page" in mark_left(tmp_path / "rows")
    assert "others have it open" in stepped.stats.why
    assert stepped.cache.lookup([key(1)]) == [None]
    stepped.now += AGAIN_SECONDS - 1
    stepped.step()
    assert not list(tmp_path.glob("rows.bad-*"))
    other.store.close()
    other.close()
    stepped.step()
    assert not list(tmp_path.glob("rows.bad-*"))  # not before a minute has passed
    stepped.now += 2
    stepped.step()
    assert list(tmp_path.glob("rows.bad-*"))
    stepped.react()
    works(stepped, 3)


KILLED = """
import os, sys
from pathlib import Path
from unittest.mock import Mock
import lmdb
from tests.cache.stepping import SteppedCache, key
stepped = SteppedCache(Path(sys.argv[1]))
stepped.cache._read = Mock(side_effect=lmdb.CorruptedError("a page"))
stepped.cache.lookup([key(1)])
print("found", flush=True)
sys.stdin.readline()
stepped.step()
print("marked", flush=True)
sys.stdin.read()
"""


def test_a_process_killed_after_it_has_found_damage_has_left_the_mark(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    stepped = SteppedCache(tmp_path, 8 * MIB)
    with child(KILLED, tmp_path) as process:
        assert heard(process) == "found"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert heard(process) == "marked"
        process.kill()
        process.wait()
    assert "a page" in mark_left(tmp_path / "rows")
    stepped.close()
    again = SteppedCache(tmp_path)
    assert "set aside" in again.lines[0]
    again.close()


def test_others_can_join_while_it_is_tried_in_vain(stepped, tmp_path, monkeypatch):
    corrupt(stepped, tmp_path)
    monkeypatch.setattr(integrity, "set_aside", Mock(side_effect=OSError(28, "No space left on device")))
    stepped.step()
    assert "No space left" in stepped.stats.why
    monkeypatch.undo()
    assert integrity.Claim(tmp_path)._lock(fcntl.LOCK_SH)


@pytest.mark.parametrize("turns", ["marked", "opened", "taken over"])
def test_a_stop_at_any_moment_leaves_a_good_file_or_a_mark(tmp_path, turns):
    stepped = SteppedCache(tmp_path, 8 * MIB)
    other = Opened(tmp_path) if turns == "marked" else None
    corrupt(stepped, tmp_path)
    stepped.step()
    if turns == "taken over":
        stepped.react()
    stepped.cache.keep([key(5)], [BODY])
    stepped.close()
    stepped.react()  # late
    if other is not None:
        other.store.close()
        other.close()
    again = SteppedCache(tmp_path)
    assert any("set aside" in line for line in again.lines) == (turns == "marked")
    works(again, 7)
    again.close()


def test_rows_that_somebody_waits_for_are_told_of(stepped, tmp_path):
    corrupt(stepped, tmp_path)
    told: list[Exception | None] = []
    stepped.cache.keep([key(5)], [BODY])
    stepped.cache.sync(told.append)
    stepped.step()
    stepped.react()
    assert "1 rows were not kept" in str(told[0])
