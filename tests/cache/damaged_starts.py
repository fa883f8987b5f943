"""Starts servers' caches on damaged files, each in a process of its own, and counts what became of them.

Run as `python -m tests.cache.damaged_starts FILES [WORKERS]`: FILES of each kind behind each mark, and a table of them.
The processes, the walking ones too, are forked from this one, which spares only the interpreter's start.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.table import machine
from rowserve.cache import integrity, walk
from rowserve.cache.background_walk import BackgroundWalk
from rowserve.cache.opening import open_cache
from rowserve.cache.row_cache import RowCache
from tests.cache.damage import ALIAS, KINDS, MARKS, ROWS, build, damaged_copy, keep, row, row_key

STARTS = 3
LATER = 100_000
NEW_ROWS = 150
SECONDS = 60
COLUMNS = (
    "files",
    "set aside at start",
    "while serving",
    "found by the walk",
    "walks that died",
    "crashes before",
    "crashes after",
    "hung",
    "raised",
    "wrong rows",
    "failing second starts",
)


def forked(run: Callable[[], int]) -> int:
    """The id of a new process that does nothing else."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = run()
    except BaseException:  # noqa: BLE001  it must not come back
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def walked(words: list[str]) -> dict[str, Any]:
    """What the walk says, run in a process of its own as its command line asks."""

    def run() -> int:
        for stream, target in ((said, 1), (fault, 2)):
            os.dup2(stream.fileno(), target)
        sys.argv = words
        walk.be_patient = lambda: None
        try:
            walk.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return 1 if isinstance(end.code, str) else int(end.code or 0)
        except Exception:  # noqa: BLE001  as Python ends a program
            traceback.print_exc()
            return 1
        return 0

    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as fault:
        _, status = os.waitpid(forked(run), 0)
        for stream in (said, fault):
            stream.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "said": said.read().decode(),
            "fault": fault.read().decode(),
        }


class Line:
    """Messages to the process that forks, and its answers."""

    def __init__(self, end: socket.socket) -> None:
        self._file = end.makefile("rw")

    def tell(self, **message: Any) -> None:
        self._file.write(json.dumps(message) + "\n")
        self._file.flush()

    def hear(self) -> dict[str, Any] | None:
        line = self._file.readline()
        return json.loads(line) if line else None


class Asked:
    """Stands for subprocess.Popen: the walk is run by the process that forks, which has no LMDB file open."""

    line: Line

    def __init__(self, command: list[str], **_: object) -> None:
        self.line.tell(walk=command[len(integrity.WALK) :])
        heard = self.line.hear()
        assert heard is not None
        self.returncode = heard["status"]
        self.answer = heard["said"].encode(), heard["fault"].encode()

    def communicate(self) -> tuple[bytes, bytes]:
        return self.answer

    @classmethod
    def run(cls, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        """Stands for subprocess.run."""
        asked = cls(command)
        return subprocess.CompletedProcess(command, asked.returncode, *asked.answer)


class Server:
    """What a server does with its cache: one start."""

    def __init__(self, folder: Path, line: Line, last: int) -> None:
        self._now = 1.8e9
        self._last = last
        self._line = line
        self.lines: list[str] = []
        self.wrong = 0
        self.cache: RowCache = open_cache(
            folder, log=self.lines.append, start_thread=lambda run: None, clock=lambda: self._now
        )
        self._folder = folder
        line.tell(phase="open", state=self.cache.stats.state, aside=self.aside())

    def aside(self) -> int:
        """How many files have been set aside so far."""
        return sum("set aside" in line for line in self.lines)

    def look(self, numbers: list[int]) -> int:
        """Ask for rows, and for aliases of some; how many were hits."""
        hits = 0
        for number, body in zip(numbers, self.cache.lookup([row_key(number) for number in numbers]), strict=True):
            hits += body is not None
            self.wrong += body is not None and bytes(body) != row(number)
        uploads = [number for number in numbers if not number % 10]
        aliases = self.cache.lookup_aliases([row_key(ALIAS + number) for number in uploads])
        self.wrong += sum(found not in (None, row_key(number)) for number, found in zip(uploads, aliases, strict=True))
        self.wrong += self.cache.recall(b"model") not in (None, b"a description")
        return hits

    def serve(self, first: int) -> bool:
        """Read, write, read; whether what was written is there."""
        self._now += 70
        new = range(first, first + NEW_ROWS)
        for start in range(0, self._last, 32):
            self.look(list(range(start, start + 32)))
        if self.cache._writer is not None:
            keep(self.cache, new)
        return self.look(list(new)) == NEW_ROWS

    def walk(self) -> None:
        """As the background walk does."""
        told: list[str] = []

        def damaged(why: str) -> None:
            told.append(why)
            self.cache.found_damaged(why)

        BackgroundWalk(self._folder / integrity.ROWS, damaged, self.cache.forget, lambda call: call())._walk()
        self._line.tell(phase="walked", found=bool(told))


def start(folder: Path, line: Line, turn: int, last: int, short: bool, killed: bool) -> int:
    """One life of a server, or of a command that ends before any walk."""
    signal.alarm(SECONDS)
    Asked.line = line
    subprocess.Popen, subprocess.run = Asked, Asked.run  # type: ignore[misc,assignment]
    server = Server(folder, line, last)
    kept = server.serve(LATER + turn * 1000)
    if not short:
        server.walk()
        kept = server.serve(LATER + turn * 1000 + 500)
    server.look([LATER + turn * 1000 + number for turn in range(turn) for number in range(NEW_ROWS)])
    stats = server.cache.stats
    line.tell(phase="end", state=stats.state, why=stats.why, kept=kept, wrong=server.wrong, aside=server.aside())
    if not killed:
        if server.cache._writer is not None:
            server.cache._writer.finished.set()
        server.cache.close()
    return 0


def started(folder: Path, turn: int, last: int, short: bool, killed: bool) -> tuple[Counter[str], bool, list[Any]]:
    """One start: what is counted, whether it failed, and all that it said."""
    ours, theirs = socket.socketpair()
    pid = forked(lambda: start(folder, Line(theirs), turn, last, short, killed))
    theirs.close()
    line = Line(ours)
    told: list[Any] = []
    count: Counter[str] = Counter()
    phases: dict[str, Any] = {}
    while (message := line.hear()) is not None:
        told.append(message)
        if "walk" in message:
            answer = walked(message["walk"])
            told.append(answer)
            count["walks that died"] += answer["status"] < 0
            line.tell(**answer)
        else:
            phases[message["phase"]] = message
    ours.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told.append(status)
    aside = phases.get("open", {}).get("aside", 0)
    count["set aside at start"] += aside
    count["while serving"] += phases.get("end", {}).get("aside", aside) - aside
    count["found by the walk"] += phases.get("walked", {}).get("found", False)
    count["wrong rows"] += phases.get("end", {}).get("wrong", 0)
    if status == -signal.SIGALRM:
        count["hung"] += 1
    elif status < 0:
        count["crashes after" if "walked" in phases else "crashes before"] += 1
    elif status:
        count["raised"] += 1
    end = phases.get("end", {})
    good = status == 0 and phases["open"]["state"] == end["state"] == "ok" and end["kept"]
    return count, not good, told


def one_file(bases: dict[str, Path], target: Path, kind: str, mark: str, seed: int, log: list[str]) -> Counter[str]:
    """What became of one damaged file in all its starts."""
    rng = random.Random(f"{kind} {mark} {seed}")
    base = rng.choice(sorted(bases))
    damaged_copy(bases[base], target, kind, mark, rng)
    count: Counter[str] = Counter(files=1)
    failed = False
    story = []
    for turn in range(STARTS):
        before, last = failed, turn == STARTS - 1
        short, killed = not last and rng.random() < 0.4, rng.random() < 0.4
        counted, failed, told = started(target, turn, ROWS[base], short, killed)
        count += counted
        story.append({"short": short, "killed": killed, "failed": failed, "told": told})
        count["failing second starts"] += before and failed
    bad = [name for name in ("crashes after", "hung", "raised", "wrong rows", "failing second starts") if count[name]]
    if bad:
        log.append(json.dumps({"kind": kind, "mark": mark, "seed": seed, "bad": bad, "story": story}))
    return count


def run(
    folder: Path, files: int, worker: int, workers: int, first: int = 0
) -> tuple[dict[str, Counter[str]], list[str]]:
    """One worker's part of the files: what was counted by kind and mark, and the stories of those that went wrong."""
    bases = {name: folder / name for name in ROWS}
    log: list[str] = []
    table: dict[str, Counter[str]] = {}
    for kind in KINDS:
        for mark in MARKS:
            count = table[f"{kind}, {mark}"] = Counter()
            for seed in range(first + worker, first + files, workers):
                count += one_file(bases, folder / f"damaged{worker}", kind, mark, seed, log)
    return table, log


def run_all(folder: Path, files: int, workers: int = 1, first: int = 0) -> tuple[dict[str, Counter[str]], list[str]]:
    """All workers' parts together."""
    for name, rows in ROWS.items():
        build(folder / name, rows)

    def work(worker: int) -> int:
        result = run(folder, files, worker, workers, first)
        (folder / f"result{worker}").write_text(json.dumps(result))
        return 0

    table: dict[str, Counter[str]] = {f"{kind}, {mark}": Counter() for kind in KINDS for mark in MARKS}
    log: list[str] = []
    pids = [forked(lambda worker=worker: work(worker)) for worker in range(workers)]  # type: ignore[misc]
    for worker, pid in enumerate(pids):
        os.waitpid(pid, 0)
        counted, stories = json.loads((folder / f"result{worker}").read_text())
        log += stories
        for name, count in counted.items():
            table[name] += Counter(count)
    return table, log


def printed(table: dict[str, Counter[str]]) -> str:
    """The table in plain text."""
    lines = [f"{'':24}" + "".join(f"{name:>{len(name) + 2}}" for name in COLUMNS)]
    total: Counter[str] = Counter()
    for name, count in [*table.items(), ("all", total)]:
        total += count if name != "all" else Counter()
        lines.append(f"{name:24}" + "".join(f"{count[column]:>{len(column) + 2}}" for column in COLUMNS))
    return "\n".join(lines)


def main() -> NoReturn:
    """The program: exit status 1 where anything was wrong; the stories go to stderr."""
    files = int(sys.argv[1])
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        table, log = run_all(Path(folder), files, workers, first)
    print("python -m tests.cache.damaged_starts", *sys.argv[1:])
    print("\n".join(f"{what}: {value}" for what, value in machine().items()), printed(table), sep="\n\n", flush=True)
    for story in log:
        print(story, file=sys.stderr)
    sys.exit(bool(log))


if __name__ == "__main__":
    main()
