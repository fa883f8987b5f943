"""Gives a cache another cap: by writing it down, or by a copy with another map.

A tool's own thread. The map of a file never changes, because others may have it mapped.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from rowserve.cache import integrity
from rowserve.cache.admin import CHUNK, Report, stat
from rowserve.cache.books import About, Books
from rowserve.cache.errors import CacheRefused
from rowserve.cache.eviction import LEAST_SIZE, MAP_OVER_CAP, Budget, sweep
from rowserve.cache.keys import secret_mark
from rowserve.cache.opening import Opened, open_store, round_up
from rowserve.cache.store import Store


def resize(folder: Path, size: int) -> Report:
    """Give the cache another cap, in bytes. Raises CacheError.

    The map of a file never changes. A cap that it does not hold, or that the file has outgrown, needs a new file, and
    so nobody else may have the old one open; any other cap is simply written down.
    """
    if size < LEAST_SIZE:
        raise CacheRefused(f"the smallest cap is {LEAST_SIZE} bytes")
    opened = Opened(folder, existing=True)
    try:
        space = opened.store.space()
        fits = size * MAP_OVER_CAP <= space.map * space.page and space.file * space.page <= size
        if fits:
            describe(opened.store, replace(opened.about, size=size))
            return stat(opened.store)
    finally:
        opened.store.close()
        opened.close()
    opened = Opened(folder, existing=True, alone=True)
    try:
        shrink(opened.store, Budget.of(size, space.page))
        copy(opened.store, opened.rows, About(size, secret_mark(opened.secret).hex()))
    finally:
        opened.store.close()
        opened.close()
    opened = Opened(folder, existing=True)
    try:
        return stat(opened.store)
    finally:
        opened.store.close()
        opened.close()


def describe(store: Store, about: About) -> None:
    """Write down what the file is."""
    with store.update() as update:
        Books(update, int(time.time())).describe(about)
    store.sync()


def shrink(store: Store, budget: Budget) -> None:
    """Evict until what is in use fits the budget."""
    while True:
        with store.update() as update:
            space = update.space()
            if space.used <= budget.soft:
                return
            books = Books(update, int(time.time()))
            swept = sweep(books, 4 * CHUNK, (space.used - budget.soft) * space.page)
            books.finish()
        if not swept.looked:
            return


def copy(store: Store, rows: Path, about: About) -> None:
    """Put a copy with another map in the place of the file. Only alone."""
    fresh, old = rows.with_name("rows.new"), rows.with_name(f"{integrity.BAD}resized")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    target = open_store(fresh, round_up(int(about.size * MAP_OVER_CAP)), False)
    try:
        start = b""
        while True:
            with store.view() as view:
                chunk = view.scan(start, b"\xff" * 64, CHUNK)
            with target.update() as update:
                update.append(chunk)
            if len(chunk) < CHUNK:
                break
            start = chunk[-1][0] + b"\0"
        describe(target, about)
    finally:
        target.close()
    store.close()
    integrity.note_walked(fresh)
    integrity.write_clean(fresh)
    rows.rename(old)
    fresh.rename(rows)
    shutil.rmtree(old, ignore_errors=True)
