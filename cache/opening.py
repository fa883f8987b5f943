"""Opens the cache of a folder, whatever state it is in: the worst case is a cache that is off and says why.

Blocking, before the reactor runs.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

from rowserve.cache import integrity, secret
from rowserve.cache import stats as states
from rowserve.cache.books import ABOUT, About, Books, read_about, read_document
from rowserve.cache.commits import Limits
from rowserve.cache.errors import CacheError, CacheRefused
from rowserve.cache.eviction import LEAST_SIZE, MAP_OVER_CAP
from rowserve.cache.integrity import Claim
from rowserve.cache.keys import secret_mark
from rowserve.cache.layout import document_key
from rowserve.cache.meta_page import Meta
from rowserve.cache.renewal import Renewal
from rowserve.cache.row_cache import Call, RowCache, start_daemon
from rowserve.cache.stats import CacheStats
from rowserve.cache.store import Store

DEFAULT_SIZE = 4 * 2**30
Log = Callable[[str], None]


def open_cache(
    folder: Path,
    size: int | None = None,
    *,
    log: Log = lambda line: None,
    clock: Callable[[], float] = time.time,
    start_thread: Callable[[Call], object] = start_daemon,
    call_in_reactor: Callable[[Call], None] = lambda call: call(),
    limits: Limits | None = None,
    allow_network: bool = False,
) -> RowCache:
    """The cache in `folder`, made if there is none, with a cap of `size` bytes (default 4 GiB) if it is new.

    Never raises for the state of folder or file: the cache returned may be off, or read-only; `stats` and one log line
    say so. `allow_network` takes a network file system at the user's risk.
    """
    stats = CacheStats(log=log)
    key: bytes | None = None
    try:
        opened = Opened(folder, size, log=log, clock=clock, allow_network=allow_network)
        key = opened.secret
    except (CacheError, OSError) as error:
        stats.become(states.OFF, str(error))
        return RowCache(stats=stats, secret=key, clock=clock, call_in_reactor=call_in_reactor)
    if opened.read_only:
        stats.become(states.READ_ONLY, f"{folder} cannot be written")
    renewal = Renewal(opened, stats, clock, call_in_reactor)
    return RowCache(
        opened.store,
        secret=opened.secret,
        stats=stats,
        clock=clock,
        start_thread=start_thread,
        call_in_reactor=call_in_reactor,
        limits=limits,
        ready=renewal.ready,
        on_close=renewal.close,
        read_only=opened.read_only,
    )


class AboutLost(CacheRefused):
    """The file is a cache, but its own description is damaged."""


class Opened:
    """A cache folder that passed every check: its secret, its store, what its file says of itself.

    Raises CacheError or OSError where it cannot be used. `existing` makes nothing, `alone` keeps all others out until
    `close`, which follows the closing of the store.
    """

    def __init__(
        self,
        folder: Path,
        size: int | None = None,
        *,
        log: Log = lambda line: None,
        clock: Callable[[], float] = time.time,
        allow_network: bool = False,
        existing: bool = False,
        alone: bool = False,
    ) -> None:
        self.folder = folder
        self.rows = folder / integrity.ROWS
        self.read_only = False
        self._log = log
        self._clock = clock
        if existing and not (self.rows / integrity.DATA).exists():
            raise CacheRefused(f"there is no cache in {folder}")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not allow_network:
            integrity.refuse_network(folder)
        self.secret = secret.read_or_make(folder)
        try:
            self.claim: Claim | None = Claim(folder)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self.claim, self.read_only = None, True
        try:
            self.store = self._open(size, alone)
        except BaseException:
            self._release()
            raise

    def _open(self, size: int | None, alone: bool) -> Store:
        if self.claim is not None:
            self.claim.take()
        if alone and (self.claim is None or not self.claim.alone):
            raise CacheRefused(f"others have {self.folder} open; stop them first")
        meta = self._checked()
        if meta is None:
            if self.claim is None or not self.claim.alone:
                raise CacheRefused(f"{self.rows} has no cache file")
            self.rows.mkdir(mode=0o700, exist_ok=True)
            integrity.note_walked(self.rows)
        if not self.read_only:
            integrity.drop_clean(self.rows)
        cap = max(size or DEFAULT_SIZE, LEAST_SIZE)
        map_size = round_up(int(cap * MAP_OVER_CAP)) if meta is None else meta.map_size
        store = open_store(self.rows, map_size, self.read_only)
        try:
            self.about = self._agree(store, cap)
        except AboutLost as lost:
            store.close()
            integrity.leave_mark(self.rows, str(lost))
            if self.claim is None or not self.claim.alone:
                raise
            return self._open(size, alone)  # which finds the mark, and sets the file aside
        except BaseException:
            store.close()
            raise
        if size is not None and self.about.size != size and meta is not None:
            kept = f"{self.folder} keeps its cap of {self.about.size} bytes"
            self._log(f"cache: {kept}; `rowserve cache resize` changes it")
        if not alone and self.claim is not None and self.claim.alone and not self.claim.share():
            store.close()
            raise CacheRefused(f"{self.folder} is being checked or changed by another program")
        return store

    def _checked(self) -> Meta | None:
        """The file's meta page, or None when a file must be made. A bad file is set aside by who has it alone."""
        alone = self.claim is not None and self.claim.alone
        try:
            return integrity.check(self.rows, alone)
        except CacheRefused as refused:
            if not alone:
                raise CacheRefused(f"{refused}; others have it open, so it stays where it is") from refused
            aside = integrity.set_aside(self.rows, self._clock)
            self._log(f"cache: {refused}; set aside as {aside}, starting anew")
            return None

    def _agree(self, store: Store, cap: int) -> About:
        """What the file says of itself, written when it is new. Raises CacheRefused when it is not ours."""
        mark = secret_mark(self.secret).hex()
        with store.view() as view:
            about = read_about(view)
            new = about is None and view.last(b"", b"\xff" * 64) is None
            there = view.get(document_key(ABOUT)) is not None
            lost = there and read_document(view, ABOUT) is None  # one that only reads strangely is another version's
        if lost:
            raise AboutLost(f"what {self.rows} says of itself is damaged")
        if about is None:
            if not new or self.claim is None or not self.claim.alone:
                raise CacheRefused(f"{self.rows} does not say what it is")
            about = About(cap, mark)
            with store.update() as update:
                books = Books(update, int(self._clock()))
                books.describe(about)
                books.finish()
        if about.format != 1:
            raise CacheRefused(f"{self.rows} has format {about.format}, which this version does not know")
        if about.secret != mark:
            raise CacheRefused(
                f"{self.folder / secret.NAME} does not belong to {self.rows}: put the right one back, "
                "or empty the cache with `rowserve cache purge`"
            )
        return about

    def mark(self) -> None:
        """Have the next who has the file alone set it aside, for what was found wrong with it."""
        if self.claim is not None:
            integrity.leave_mark(self.rows, self.store.damaged)

    def reopen(self) -> Store:
        """A new store in the place of one that is marked, which stays open; on any thread. Raises CacheError or OSError
        where the file cannot be set aside."""
        if self.claim is None:
            raise CacheRefused(f"{self.folder} cannot be written")
        try:
            return self._open(self.about.size, False)
        except BaseException:
            self.claim.share()
            raise

    def close(self) -> None:
        """Note a clean end if nothing went wrong and nobody else has the cache, or that the file was found damaged, and
        let go. The store is closed already."""
        try:
            if self.store.damaged:
                self.mark()
            elif self.store.sound and self.claim is not None and self.claim.take_alone():
                integrity.write_clean(self.rows)
        except OSError:
            pass  # the next start walks the file, no more
        finally:
            self._release()

    def _release(self) -> None:
        if self.claim is not None:
            self.claim.release()


def round_up(size: int) -> int:
    """To whole pages of any size in use."""
    return -(-size // 65536) * 65536


def open_store(rows: Path, map_size: int, read_only: bool) -> Store:
    """The LMDB store; imported here, because many a command never opens it."""
    from rowserve.cache.lmdb_store import LmdbStore

    return LmdbStore(rows, map_size, read_only)
