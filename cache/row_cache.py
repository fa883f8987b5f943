"""The cache of finished rows: looked up and filled on the reactor thread.

Nothing here raises for what is wrong with the disk or the file: then every look-up is a miss, and `stats` says why.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from xxhash import xxh3_64_digest, xxh3_64_intdigest

from rowserve.cache import stats as states
from rowserve.cache.books import generation_name, read_document, read_pieces, served_names
from rowserve.cache.commits import Limits
from rowserve.cache.errors import StoreDamaged, StoreFailed
from rowserve.cache.keys import SECRET_BYTES, TAG_BYTES, Generation, array_content
from rowserve.cache.keys import generation as make_generation
from rowserve.cache.layout import THROW_AWAY_TAG, document_key
from rowserve.cache.record import HEADER_BYTES, Kind, created_bytes, unseal, unseal_any
from rowserve.cache.stats import CacheStats
from rowserve.cache.store import Nothing
from rowserve.cache.writer import Writer
from rowserve.graphs.rows import Array, Buffer

if TYPE_CHECKING:
    from rowserve.cache.store import Reader, Store
    from rowserve.graphs.signature import Signature

MOST_NOTED = 8192
MOST_NAMES = 4  # that a generation was served under
MOST_GENERATIONS = 256
ROW = int(Kind.ROW)
NO_TAG = bytes(TAG_BYTES)
Call = Callable[[], None]


def start_daemon(run: Call) -> None:
    """A thread of its own that does not keep the process alive."""
    threading.Thread(target=run, name="cache writer", daemon=True).start()


class RowCache:
    """Rows by key, aliases of uploads, small documents.

    Without a store it is off: every look-up misses, nothing is kept. `clock` is wall time in seconds. `start_thread`
    runs a callable on a new thread, `call_in_reactor` one on the reactor thread.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        secret: bytes | None = None,
        stats: CacheStats | None = None,
        clock: Callable[[], float] = time.time,
        start_thread: Callable[[Call], object] = start_daemon,
        call_in_reactor: Callable[[Call], None] = lambda call: call(),
        limits: Limits | None = None,
        ready: Callable[[], bool] = lambda: True,
        on_close: Call = lambda: None,
        read_only: bool = False,
    ) -> None:
        self.stats = stats or CacheStats()
        self._secret = secret or secrets.token_bytes(SECRET_BYTES)
        self._throw_away = secrets.token_bytes(SECRET_BYTES)
        self._store = store
        self._clock = clock
        self._call_in_reactor = call_in_reactor
        self._on_close = on_close
        self._generations: dict[object, Generation] = {}
        self._writer: Writer | None = None
        self._pending: Mapping[bytes, Buffer] = {}
        self._noted: set[bytes] = set()
        self._read: Callable[[], Reader] = Nothing
        self._errors: tuple[type[Exception], ...] = (StoreFailed,)
        if store is None:
            if self.stats.state == states.OK:
                self.stats.state = states.OFF
            return
        self._read, self._errors = store.read, (StoreFailed, *store.errors)
        if not read_only:
            self._writer = Writer(
                store, self.stats, clock=clock, call_in_reactor=call_in_reactor, limits=limits, ready=ready
            )
            self._pending, self._noted = self._writer.pending, self._writer.noted
            start_thread(self._writer.run)

    def generation(
        self,
        *,
        fingerprint: str,
        signature: Signature,
        static: Mapping[str, Array] | None = None,
        execution: Mapping[str, str] | None = None,
        tenant: bytes = b"",
        model: str = "",
        throw_away: bool = False,
    ) -> Generation:
        """The name space of rows answered so, under this installation's secret; the last ones are remembered.

        `model` is the name it is served under: no part of it, but written down for people who look into the file. The
        rows of a `throw_away` one are found by this process alone, and forgotten soon: see `put_off_forgetting`.
        """
        static, execution = static or {}, execution or {}
        contents = tuple((name, array_content(static[name])) for name in sorted(static)) if static else ()
        asked = (fingerprint, signature, contents, tuple(sorted(execution.items())), tenant, model, throw_away)
        found = self._generations.get(asked)
        if found is None:
            found = make_generation(
                self._secret,
                fingerprint=fingerprint,
                signature=signature,
                static=static,
                execution=execution,
                tenant=self._throw_away if throw_away else tenant,
            )
            if len(self._generations) >= MOST_GENERATIONS:
                del self._generations[next(iter(self._generations))]
            self._generations[asked] = found
            if throw_away:
                found = self._generations[asked] = replace(found, tag=THROW_AWAY_TAG)
            else:
                self._introduce(found, fingerprint, signature.name, model)
        return found

    def put_off_forgetting(self) -> None:
        """Throw-away rows are asked for: they are forgotten some seconds after the last such call."""
        if self._writer is not None:
            self._writer.put_off_forgetting()

    def _introduce(self, generation: Generation, fingerprint: str, signature: str, model: str) -> None:
        """Write down once what the generation's tag stands for, with the last names that it was served under."""
        if self._writer is None:
            return
        name = generation_name(generation.tag)
        known = self.recall(name)
        models = [each for each in served_names(known) if each != model] + ([model] if model else [])
        about = {"fingerprint": fingerprint, "signature": signature, "models": models[-MOST_NAMES:]}
        if known != (document := json.dumps(about).encode()):
            self.remember(name, document)

    def lookup(self, keys: Sequence[bytes], max_age: float | None = None) -> list[Buffer | None]:
        """The packed outputs of each key, or None. Of rows older than `max_age` seconds, None."""
        pending, noted = self._pending, self._noted
        # Before the file is read: the writer lets go of a row only when it can be read there.
        queued = [pending.get(key) for key in keys] if pending else None
        full = len(noted) >= MOST_NOTED
        oldest = b"" if max_age is None else created_bytes(self._clock() - max_age)
        found: list[Buffer | None] = []
        add = found.append
        try:
            reader = self._read()
            try:  # one loop for all, without another call: a hit is a microsecond
                get = reader.get
                for key in keys:
                    value = get(key)
                    body: Buffer | None = None
                    if value is not None and (not oldest or value[12:16] >= oldest):
                        # Slices of bytes: to copy 4 kB costs no more than to make a view of them.
                        if xxh3_64_digest(value[8:], xxh3_64_intdigest(key, ROW)) == value[:8]:
                            body = value[HEADER_BYTES:]
                        else:
                            body = self._look_closer(Kind.ROW, key)
                        if body is not None and not full:
                            noted.add(key)
                    add(body)
            finally:
                reader.abort()
        except self._errors as error:
            if self._store is not None:
                self._store.note(error)
            self._failed(error)
            found += [None] * (len(keys) - len(found))
        if queued is not None:
            return [body if new is None else new for new, body in zip(queued, found, strict=True)]
        return found

    def lookup_aliases(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The row key that each upload's key leads to, or None."""
        queued = [self._pending.get(key) for key in keys]  # before the file is read, as above
        found: list[bytes | None] = []
        values: list[bytes | None] = [None] * len(keys)
        try:
            if self._store is not None:
                values = self._store.get_many(keys)
        except StoreFailed as error:
            self._failed(error)
        for key, new, value in zip(keys, queued, values, strict=True):
            body: Buffer | None = new
            if body is None and value is not None:
                body = unseal(Kind.ALIAS, key, value)
                if body is None:
                    body = self._look_closer(Kind.ALIAS, key)
                elif len(self._noted) < MOST_NOTED:
                    self._noted.add(key)
            found.append(None if body is None else bytes(body))
        return found

    def _look_closer(self, kind: Kind, key: bytes) -> Buffer | None:
        """A record whose first page alone does not check: a long one, or a damaged one, which is deleted."""
        store = self._store
        assert store is not None
        try:
            with store.view() as view:
                value = view.get(key)
                if value is None:
                    return None
                body = unseal_any(kind, key, value, read_pieces(view, value))
        except StoreFailed as error:
            self._failed(error)
            return None
        if body is None:
            self.stats.bad_checksums += 1
            store.sound = False
            self.forget(key)
        return body

    def _failed(self, error: Exception) -> None:
        self.stats.errors += 1
        self.stats.become(states.FAILING, str(error))

    def found_damaged(self, why: str) -> None:
        """Somebody has looked at the file: nothing of it is read or written any more."""
        if self._store is not None:
            self._store.give_up(why)
            self._failed(StoreDamaged(why))

    def forget(self, key: bytes) -> None:
        """Somebody has found this record damaged: it is deleted if it still is."""
        if self._writer is not None:
            self._writer.forget(key)

    def keep(self, keys: Sequence[bytes], packed: Sequence[Buffer], generation: Generation | None = None) -> int:
        """Queue answers to be written; how many were taken. Never blocks; the rest is dropped and counted."""
        return self._keep(Kind.ROW, keys, packed, generation)

    def keep_aliases(
        self, alias_keys: Sequence[bytes], row_keys: Sequence[bytes], generation: Generation | None = None
    ) -> int:
        """Queue the row keys that uploads lead to; how many were taken."""
        return self._keep(Kind.ALIAS, alias_keys, row_keys, generation)

    def _keep(self, kind: Kind, keys: Sequence[bytes], bodies: Sequence[Buffer], generation: Generation | None) -> int:
        tag = NO_TAG if generation is None else generation.tag
        return 0 if self._writer is None else self._writer.keep(kind, keys, bodies, tag)

    def room_for(self, packed: Sequence[Buffer]) -> int:
        """How many of these rows, from the first on, find room now; all of them where nothing is kept anyway."""
        return len(packed) if self._writer is None else self._writer.room_for(packed)

    def when_room(self, call: Call) -> None:
        """Call back on the reactor thread when there is room again."""
        if self._writer is None:
            self._call_in_reactor(call)
        else:
            self._writer.when_room(call)

    def sync(self, done: Callable[[Exception | None], None]) -> None:
        """Call back on the reactor thread when all kept so far is on the disk, or with why it is not."""
        if self._writer is None:
            self._call_in_reactor(lambda: done(None))
        else:
            self._writer.sync(done)

    def recall(self, name: bytes) -> bytes | None:
        """The document of that name, or None."""
        if self._store is None:
            return None
        if (pending := self._pending.get(document_key(name))) is not None:
            return bytes(pending)
        try:
            with self._store.view() as view:
                return read_document(view, name)
        except StoreFailed as error:
            self._failed(error)
            return None

    def remember(self, name: bytes, document: bytes) -> None:
        """Queue a small document, never evicted, over one of the same name."""
        self._keep(Kind.DOCUMENT, [document_key(name)], [document], None)

    def close(self, timeout: float = 30.0) -> None:
        """Write what is queued and let go of the file. Blocks at most `timeout` seconds; twice does no harm."""
        writer, store = self._writer, self._store
        self._store, self._writer, self._pending, self._read = None, None, {}, Nothing
        if store is None:
            return
        if writer is not None and not writer.close(timeout):
            # The thread may stand inside a write that another process holds up: the file stays open until we end.
            self.stats.become(states.OFF, f"stopped with {self.stats.queued_rows} rows unwritten")
            return
        self.stats.state, self.stats.why = states.OFF, "closed"
        store.close()
        self._on_close()
