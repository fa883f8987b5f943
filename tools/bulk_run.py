"""`infer` and `warm` from their flags to their exit status. Main thread, which is the reactor thread.

Both are the same run: a reader thread makes chunks, a door answers them, and the end is a real sync.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from rowserve.handlers.ndjson import Mode
from rowserve.handlers.problem import Problem
from rowserve.server.card import BadSettings
from rowserve.server.config import Config
from rowserve.server.discovery import ModelSource, find
from rowserve.tools.bulk_job import BulkJob, Ending, Ready
from rowserve.tools.feed import Chunk, Feed, Window
from rowserve.tools.groups import Group, Lines
from rowserve.tools.line_reader import DescriptorLines
from rowserve.tools.options import Refused, settings
from rowserve.tools.output import Output, Silence, write_all
from rowserve.tools.picture_files import shown
from rowserve.tools.progress import Progress, count_lines, shown_for_infer
from rowserve.tools.run_reactor import ReactorRun, leave_at_once, log_to_stderr

log = logging.getLogger(__name__)

ALL_ANSWERED, SOME_FAILED, NOT_STARTED = 0, 1, 2
BROKEN_PIPE = 141  # as a shell sees a program that SIGPIPE ended
SHOWN_FAULTS = 10
FLUSH_SECONDS = 10.0


OpenDoor = Callable[[], Awaitable[Ready | None]]
"""A door that is ready, or None where that could not be, and the log has said why."""


@dataclass
class BulkRun:
    """What a run does, beside its door. `groups` is called on the reader thread; `printed`: answers go to stdout."""

    groups: Callable[[Window], Iterable[Group]]
    printed: bool
    dry: bool = False
    total: Callable[[], int | None] = lambda: None
    bar: bool = False
    window: Window = field(default_factory=Window)
    faults: int = 0

    async def work(self, run: ReactorRun, open_door: OpenDoor) -> int:
        """Opens the door, runs, and tells how it went: the exit status."""
        ready = await open_door()
        if ready is None:
            return NOT_STARTED
        progress = Progress(self.bar, self.total)
        sink: Output | Silence
        if self.printed:
            sink = Output(
                partial(write_all, 1),
                self.window,
                call_in_reactor=run.reactor.callFromThread,
                progress=progress.add,
            )
        else:
            sink = Silence(self.window, self._fault, progress.add)
        job = BulkJob(ready.door, sink, self.window)
        if isinstance(sink, Output):
            sink.failed = job.output_failed
            threading.Thread(target=sink.run, name="writer", daemon=True).start()
        run.on_signal = job.interrupt
        feed = Feed(
            ready.chunks(self.groups(self.window)),
            self.window,
            call_in_reactor=run.reactor.callFromThread,
            take=job.take,
            ended=job.ended,
        )
        began = time.monotonic()
        threading.Thread(target=feed.run, name="reader", daemon=True).start()
        ending = await job.done
        job.tally.seconds = time.monotonic() - began
        progress.close()
        return self._status(job, ending)

    def _status(self, job: BulkJob, ending: Ending) -> int:
        if ending is Ending.CLOSED:
            return BROKEN_PIPE
        if self.faults > SHOWN_FAULTS:
            say(f"... and {self.faults - SHOWN_FAULTS} more rows failed")
        if job.why:
            say(job.why)
        if job.not_kept:
            say(f"not all answers are in the cache: {job.not_kept}")
        if ending is not Ending.BROKEN or job.tally.rows:
            say(job.tally.text(dry=self.dry))
        if ending is Ending.BROKEN:
            return NOT_STARTED
        bad = job.tally.failed or (job.not_kept and not self.printed)
        return SOME_FAILED if bad else ALL_ANSWERED

    def _fault(self, chunk: Chunk, index: int, problem: Problem) -> None:
        self.faults += 1
        if self.faults <= SHOWN_FAULTS:
            name = chunk.name(index)
            place = f"row {chunk.first + index}" if name is None else shown(name)
            say(problem.detail if problem.detail.startswith(place) else f"{place}: {problem.detail}")


def say(line: str) -> None:
    """A line on stderr."""
    click.echo(f"rowserve: {' '.join(line.split())}", err=True)


def infer_stdin(mode: str, outputs: str, top: int | None, dry_run: bool, **flags: Any) -> int:
    """`rowserve infer`."""
    if os.isatty(0):
        say("reading lines from the terminal; Ctrl-D ends them")

    def groups(window: Window) -> Iterable[Group]:
        lines = DescriptorLines(0, lambda: window.idle)
        return (Lines(group, Mode(mode)) for group in lines.groups())

    bulk = BulkRun(
        groups, printed=not dry_run, dry=dry_run, total=lambda: count_lines(0), bar=shown_for_infer()
    )
    wishes = {"outputs": outputs, "top": "" if top is None else str(top)}
    return run_bulk(bulk, "infer", wishes, dry_run=dry_run, **flags)


def warm_sources(sources: Sequence[str], dry_run: bool, **flags: Any) -> int:
    """`rowserve warm`."""
    from rowserve.tools.sources import BadPlace, Sources

    try:
        found = Sources(sources)
    except BadPlace as error:
        raise Refused(str(error)) from None
    bulk = BulkRun(
        lambda window: found.groups(), printed=False, dry=dry_run, total=found.count, bar=os.isatty(2)
    )
    return run_bulk(bulk, "warm", None, dry_run=dry_run, **flags)


def run_bulk(
    bulk: BulkRun,
    protocol: str,
    wishes: dict[str, str] | None,
    *,
    model: str,
    models: Any,
    signature: str,
    server: str | None,
    dry_run: bool,
    **flags: Any,
) -> int:
    """Runs through a server, or through a pipeline in this process. Raises Refused."""
    log_to_stderr()
    config = settings(**flags)
    run = ReactorRun()
    if server is not None:
        if dry_run:
            raise Refused("--dry-run looks into the cache on this disk: leave --server out")
        from rowserve.tools.remote import RemoteRun

        asked = {"signature": signature, **(wishes or {})}
        remote = RemoteRun(run.reactor, server, model, asked, config, printed=bulk.printed)
        status = run.run(partial(bulk.work, run, remote.ready))
        return leave_at_once(status) if status >= 128 else status
    from rowserve.tools.local_run import LocalRun

    local = LocalRun(run.reactor, config, find_model(model, models, config), dry=dry_run)
    try:
        status = run.run(partial(bulk.work, run, partial(local.ready, signature, wishes, protocol)))
    finally:
        local.flush(FLUSH_SECONDS)
    if status >= 128:
        leave_at_once(status)
    local.close()
    return status


def find_model(model: str, models: Path | None, config: Config) -> ModelSource:
    """The model that a command names. Raises Refused."""
    try:
        return find(model, models or (Path(config.models) if config.models else None))
    except (BadSettings, OSError) as error:
        raise Refused(str(error)) from None
