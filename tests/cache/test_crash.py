"""Writers killed and stopped at any moment."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.cache.stepping import MIB, SteppedCache, child, heard, key

WRITE = """
import random, sys
from pathlib import Path
from rowserve.cache.opening import open_cache
from tests.cache.stepping import key
cache = open_cache(Path(sys.argv[1]), 2**25, start_thread=lambda run: None)
rng, number = random.Random(int(sys.argv[2])), int(sys.argv[2])
assert cache.stats.state == "ok", cache.stats
print("ready", flush=True)
while True:
    keys = [key(number + i) for i in range(rng.randrange(1, 9))]
    cache.keep(keys, [each * rng.choice([3, 125, 400]) for each in keys])
    while cache.stats.queued_rows:
        cache._writer.step()
    number += len(keys)
    print(number, flush=True)
"""


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_fifty_killed_writers_lose_no_acknowledged_row_and_leave_no_wrong_one(tmp_path, monkeypatch):
    """Each is killed at a random moment of a commit; an acknowledged row is one whose commit had returned."""
    rng = random.Random(7)
    stepped = SteppedCache(tmp_path, 32 * MIB)
    for turn in range(50):
        start = turn * 100_000
        with child(WRITE, tmp_path, start) as writer:
            assert heard(writer) == "ready"
            acknowledged = start
            for _ in range(rng.randrange(1, 12)):
                acknowledged = int(heard(writer))
            writer.send_signal(signal.SIGKILL)
            said, _ = writer.communicate()
            whole_lines = said.split("\n")[:-1]
            acknowledged = int(whole_lines[-1]) if whole_lines else acknowledged
        kept = [key(i) for i in range(start, acknowledged)]
        found = stepped.cache.lookup(kept)
        assert all(value is not None for value in found)
        later = [key(i) for i in range(acknowledged, acknowledged + 20)]
        for each, value in zip(kept + later, found + stepped.cache.lookup(later), strict=True):
            assert value is None or (bytes(value) == each * (len(value) // 32) and len(value))
        stepped.now += 61  # and the slots of the dead are freed
        stepped.step()
    assert stepped.stats.bad_checksums == 0
    assert stepped.stats.evicted == 0
    stepped.cache.keep([key(1)], [b"x"])
    stepped.settle()
    assert stepped.stats.failed == 0
    stepped.close()


STOP = """
import os, signal, sys
from pathlib import Path
from rowserve.cache.opening import Opened
opened = Opened(Path(sys.argv[1]))
with opened.store.update() as update:
    update.put(b"half", b"done")
    print("writing", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_writer_stopped_inside_a_write_blocks_no_start_and_no_answer(tmp_path):
    first = SteppedCache(tmp_path, 32 * MIB)
    first.cache.keep([key(1)], [b"one"])
    first.settle()
    first.close()
    with child(STOP, tmp_path) as stopped:
        assert heard(stopped) == "writing"
        stepped = SteppedCache(tmp_path)  # opens
        assert stepped.stats.state == "ok"
        assert stepped.cache.lookup([key(1)]) == [b"one"]  # reads
        taken = stepped.cache.keep([key(2)], [b"two"])  # takes
        assert taken == 1
        assert stepped.cache.lookup([key(1), key(2)]) == [b"one", b"two"]
        import threading

        threading.Thread(target=stepped.threads[0], daemon=True).start()  # its writer waits, and only it
        assert stepped.cache.lookup([key(1), key(2)]) == [b"one", b"two"]
        stepped.cache.recall(b"model")
        stopped.send_signal(signal.SIGKILL)
        stopped.wait()
        done = threading.Event()
        stepped.cache.sync(lambda error: None)
        stepped.writer.finished.wait(0)
        stepped.cache.close(60)
        done.set()
    again = SteppedCache(tmp_path)
    assert again.cache.lookup([key(1), key(2)]) == [b"one", b"two"]
    assert again.store.get_many([b"half"]) == [None]
    again.close()


def test_closing_beside_a_stopped_writer_ends(tmp_path):
    SteppedCache(tmp_path, 32 * MIB).close()
    with child(STOP, tmp_path) as stopped:
        assert heard(stopped) == "writing"
        import threading

        stepped = SteppedCache(tmp_path)
        stepped.cache.keep([key(2)], [b"two"])
        threading.Thread(target=stepped.threads[0], daemon=True).start()
        writer = stepped.writer
        stepped.cache.close(0.01)
        assert stepped.stats.state == "off"
        stopped.send_signal(signal.SIGKILL)
        stopped.wait()
        assert writer.finished.wait(60)


READ = """
import sys
from pathlib import Path
from rowserve.cache.opening import open_cache
from tests.cache.stepping import key
cache = open_cache(Path(sys.argv[1]), start_thread=lambda run: None)
keys, turn = [key(i) for i in range(40)], 0
while True:
    for each, value in zip(keys, cache.lookup(keys)):
        assert value is None or bytes(value) in (each * 125, each * 7), "wrong answer"
    turn += 1
    if turn % 50 == 0:
        print(cache.stats.bad_checksums, flush=True)
"""


def test_a_reader_stopped_and_continued_under_writes_serves_nothing_wrong(tmp_path):
    stepped = SteppedCache(tmp_path, 8 * MIB)
    keys = [key(i) for i in range(40)]
    with child(READ, tmp_path) as reader:
        assert heard(reader) == "0"
        for turn in range(60):
            reader.send_signal(signal.SIGSTOP)
            stepped.cache.keep(keys, [each * (125 if turn % 2 else 7) for each in keys])
            stepped.settle()
            reader.send_signal(signal.SIGCONT)
            assert heard(reader).isdigit()
        assert reader.poll() is None
    stepped.close()
