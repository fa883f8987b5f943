"""What `rowserve cache` prints. Main thread, blocking; without a reactor and without TensorFlow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from rowserve.cache import admin, integrity
from rowserve.cache.errors import CacheError
from rowserve.cache.opening import Opened
from rowserve.cache.resizing import resize
from rowserve.server import config as server_config
from rowserve.server.config import Config
from rowserve.server.units import Bytes
from rowserve.tools.options import Refused, settings
from rowserve.tools.progress import Progress

DAMAGED = 1
SET_ASIDE = "Restart what uses the cache: the file is then set aside, and a new one begun."
SHOWN_DAMAGED = 20
# What is known of hits from outside the process that serves them.
SINCE = "since eviction last passed the row; they are noted only while the cache is nearly full"


@contextmanager
def refusing() -> Iterator[None]:
    """Faults of the cache, and of reading it, as one line."""
    try:
        yield
    except CacheError as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None


@contextmanager
def opened(config: Config) -> Iterator[Opened]:
    """The cache, which must be there. Raises Refused."""
    with refusing():
        there = Opened(folder_of(config), existing=True)
        try:
            yield there
        finally:
            there.store.close()
            there.close()


def print_stat(cache_folder: Path | None, config: Path | None, as_json: bool) -> None:
    """How full the cache is."""
    with opened(settings(config, cache_folder)) as there:
        report = admin.stat(there.store)
        folder = there.folder
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **asdict(report)}))
        return
    share = 100 * report.used / report.size if report.size else 0.0
    print_columns(
        [
            ("folder", str(folder)),
            ("cap", Bytes.text(report.size)),
            ("in use", f"{Bytes.text(report.used)} ({share:.1f} %)"),
            ("file", Bytes.text(report.file)),
            ("rows", f"{report.rows:,}"),
            ("uploads", f"{report.aliases:,}"),
            ("evicted", f"{report.evicted:,}"),
        ]
    )
    if report.generations:
        click.echo()
        lines = [("generation", "records", "signature", "fingerprint", "served as")]
        for tag, count in sorted(report.generations.items(), key=lambda entry: -entry[1]):
            name = report.names.get(tag, {})
            served = ", ".join(reversed(name.get("models", ()))) or "?"
            lines.append((tag, f"{count:,}", name.get("signature", "?"), name.get("fingerprint", "?")[:16], served))
        print_columns(lines)


def print_list(
    cache_folder: Path | None, config: Path | None, generation: str, limit: int | None, as_json: bool
) -> None:
    """The records, as they are read."""
    with opened(settings(config, cache_folder)) as there:
        if not as_json:
            click.echo(f"{'key':<64}  {'kind':<8}  {'made':<19}  {'bytes':>9}  {'generation':<10}  hit noted")
        for record in islice(admin.ls(there.store, generation), limit):
            if as_json:
                click.echo(json.dumps(asdict(record)))
            else:
                about = f"{record.kind:<8}  {date(record.created)}  {record.bytes:>9}  {record.generation:<10}"
                click.echo(f"{record.key:<64}  {about}  {'yes' if record.hit else ''}".rstrip())


def print_verify(cache_folder: Path | None, config: Path | None, drop: bool, as_json: bool) -> int:
    """The damaged pages, or else records; the exit status."""
    made = settings(config, cache_folder)
    with refusing():
        fault = integrity.verify_pages(folder_of(made))
    if fault:
        click.echo(json.dumps({"pages": fault}) if as_json else f"{fault}\n{SET_ASIDE}")
        return DAMAGED
    with opened(made) as there:
        bar = Progress(os.isatty(2), lambda: records_of(admin.stat(there.store)))
        found = admin.verify(there.store, drop, lambda: bar.add(1))
        bar.close()
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        what = "dropped" if drop else "damaged"
        for key in found.damaged[:SHOWN_DAMAGED]:
            click.echo(f"{what}: {key}")
        click.echo(f"all pages checked; {found.checked:,} records checked, {len(found.damaged):,} {what}")
    return DAMAGED if found.damaged else 0


def print_purge(cache_folder: Path | None, config: Path | None, generation: str) -> None:
    """How many rows went."""
    made = settings(config, cache_folder)
    if generation:
        with opened(made) as there:
            if generation not in admin.stat(there.store).generations:
                raise Refused(f"there is no generation {generation}; `rowserve cache stat` shows those there are")
            purged: int | None = admin.purge(there.store, generation)
    else:
        with refusing():
            purged = admin.purge_all(folder_of(made))
    click.echo("all records dropped" if purged is None else f"{purged:,} records dropped")


def folder_of(config: Config) -> Path:
    """Where the cache lies."""
    return server_config.cache_folder(config.cache)


def print_resize(size: str, cache_folder: Path | None, config: Path | None) -> None:
    """What the cache is then."""
    try:
        cap = Bytes.parse(size)
    except ValueError as error:
        raise Refused(str(error)) from None
    made = settings(config, cache_folder)
    with refusing():
        report = resize(folder_of(made), cap)
    click.echo(f"cap {Bytes.text(report.size)}, in use {Bytes.text(report.used)}, {report.rows:,} rows")


def print_explanation(
    model: str,
    input: str,  # noqa: A002 - the name of the argument
    signature: str,
    models: Path | None,
    cache_folder: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """The parts of a row's key, and where the row stands."""
    from rowserve.tools.explained import explained_row

    made = settings(config, cache_folder)
    with opened(made) as there:
        row = explained_row(there, made, model, models, input, signature)
        found = admin.explain(there.store, row.generation, row.packed)
        with there.store.view() as view:
            upload = None if row.alias is None else admin.look(view, row.alias)
    listed = found.listed
    if as_json:
        fields = [{"label": f.label, "name": f.name, "bytes": len(f.content), "digest": f.digest} for f in found.fields]
        plain: dict[str, Any] = {"key": found.key, "generation": found.generation, "fields": fields}
        plain |= {"row_bytes": found.row_bytes, "state": found.state, "listed": listed and asdict(listed)}
        click.echo(json.dumps({**plain, "upload": upload and asdict(upload)}))
        return
    for line in found.lines():
        click.echo(line)
    if row.alias is not None:
        known = "known: it need not be decoded" if upload is not None else "unknown: it would be decoded"
        click.echo(f"upload      {known}")
    if listed is not None:
        age = max(0.0, time.time() - listed.created)
        click.echo(f"made        {date(listed.created)}, {ago(age)} ago")
        click.echo(f"answer      {listed.bytes} bytes")
        click.echo(f"hits        {'noted' if listed.hit else 'none noted'} {SINCE}")


def records_of(report: admin.Report) -> int:
    """How many there are, but for a few documents."""
    return report.rows + report.aliases


def date(seconds: float) -> str:
    """Local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def ago(seconds: float) -> str:
    """A duration in its largest whole unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Lines of cells, one below the other."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
