"""The one LMDB file: short reads on the reactor thread (and in tools), updates on the cache writer thread.

The only importer of lmdb. LMDB forbids a process to open the same file twice, so environments are shared by (device,
inode) and closed by their last user. After a fork the child must not touch them: there every use raises.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import lmdb

from rowserve.cache.errors import StoreDamaged, StoreFailed, StoreFull, UsedAfterFork
from rowserve.cache.lmdb_views import LmdbUpdate, LmdbView, space_of
from rowserve.cache.store import Reader, Space

DATA = "data.mdb"
LOCK = "lock.mdb"
MAX_READERS = 2048
IDLE = "-"
# A look at the size of the file counts for so long: each lets go of the interpreter's lock, which another thread takes.
LOOK_SECONDS = 0.001
DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.ProblemError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
)


@dataclass(slots=True)
class Shared:
    """An environment and how many stores of this process use it."""

    env: Any
    users: int = 1


ENVIRONMENTS: dict[tuple[int, int], Shared] = {}
STORES: weakref.WeakSet[LmdbStore] = weakref.WeakSet()
GUARD = threading.Lock()


def identity(folder: Path) -> tuple[int, int]:
    """What makes the data file of `folder` the same file under every path."""
    status = (folder / DATA).stat()
    return status.st_dev, status.st_ino


def acquire(folder: Path, map_size: int, read_only: bool) -> Shared:
    """The environment of `folder`, opened unless this process has it open. Raises StoreFailed."""
    with GUARD, failures():
        if (folder / DATA).exists() and (shared := ENVIRONMENTS.get(identity(folder))):
            shared.users += 1
            return shared
        env = lmdb.open(
            os.fspath(folder),
            map_size=map_size,
            metasync=False,
            readahead=False,
            mode=0o600,
            max_readers=MAX_READERS,
            max_spare_txns=1,
            readonly=read_only,
            lock=not read_only,
        )
        shared = ENVIRONMENTS[identity(folder)] = Shared(env)
        return shared


def release(shared: Shared) -> None:
    """Close the environment if nobody in this process uses it any more."""
    with GUARD:
        shared.users -= 1
        if shared.users:
            return
        for key in [key for key, other in ENVIRONMENTS.items() if other is shared]:
            del ENVIRONMENTS[key]
    shared.env.close()


@contextmanager
def failures() -> Iterator[None]:
    """LMDB's errors as the cache's own."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise failure_of(error) from error


def failure_of(error: Exception) -> StoreFailed:
    """The same of one."""
    if isinstance(error, lmdb.MapFullError):
        return StoreFull(str(error))
    return StoreDamaged(str(error)) if isinstance(error, DAMAGE) else StoreFailed(str(error))


class LmdbStore:
    """See store.Store. `map_size` counts when the file is made, and never again: 0 takes the file's own.

    `read_only` opens without a lock file: only for a file system on which nobody can write.
    """

    errors: tuple[type[Exception], ...] = (lmdb.Error,)

    def __init__(self, folder: Path, map_size: int = 0, read_only: bool = False) -> None:
        self._shared: Shared | None = acquire(folder, map_size, read_only)
        self._env = self._shared.env
        self._begin: Callable[..., Any] = self._env.begin
        self._folder, self._identity = folder, identity(folder)
        self.read_only = read_only
        self._file = os.open(folder / DATA, os.O_RDONLY | os.O_CLOEXEC)
        self._bytes = 0
        self._look_at = 0.0
        self.damaged = ""
        self.sound = True
        STORES.add(self)

    def read(self) -> Reader:
        """See store.Store."""
        now = monotonic()
        if now >= self._look_at:
            self._look()
            self._look_at = now + LOOK_SECONDS
        try:
            return self._begin()  # type: ignore[no-any-return]
        except lmdb.ReadersFullError:
            self.check_readers()
        except lmdb.Error as error:
            self.note(error)
            raise failure_of(error) from error
        with self._failures():
            return self._begin()  # type: ignore[no-any-return]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See store.Store."""
        txn = self.read()
        try:
            return [txn.get(key) for key in keys]
        except lmdb.Error as error:
            self.note(error)
            raise failure_of(error) from error
        finally:
            txn.abort()

    @contextmanager
    def view(self) -> Iterator[LmdbView]:
        """See store.Store."""
        with self._failures():
            self._look()
            with self._begin() as txn:
                yield LmdbView(txn)

    @contextmanager
    def update(self) -> Iterator[LmdbUpdate]:
        """See store.Store."""
        self._check_there()
        with self._failures(), self._begin(write=True) as txn:
            yield LmdbUpdate(self._env, txn)

    def space(self) -> Space:
        """See store.Store."""
        self._check_there()
        with self._failures():
            return space_of(self._env.stat(), self._env.info())

    def _look(self) -> None:
        """The file only ever grows. Raises StoreDamaged where it was cut: to touch its map would end the process."""
        known = self._bytes  # before the size is asked for: another thread may see a larger one meanwhile
        size = os.lseek(self._file, 0, os.SEEK_END)
        if size < known:
            self.give_up(f"{self._folder / DATA} was cut from {known} to {size} bytes")
            raise StoreDamaged(self.damaged)
        self._bytes = size

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with failures():
                yield
        except StoreDamaged as error:
            self.give_up(str(error))
            raise
        except Exception:  # damage may show in any way, in what reads the values too
            self.sound = False
            raise

    def exchange(self, other: LmdbStore) -> None:
        """See store.Store."""
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__

    def note(self, error: Exception) -> None:
        """See store.Store."""
        self.sound = False
        if isinstance(error, DAMAGE):
            self.give_up(f"{self._folder / DATA} is damaged: {error}")

    def give_up(self, why: str) -> None:
        """See store.Store. Who steps on damage may end the process, or spread it."""
        if not self.damaged:
            self.damaged = why
            self._begin = self._refuse

    def _refuse(self, **_: object) -> Any:
        raise StoreDamaged(self.damaged)

    def _check_there(self) -> None:
        """Raises StoreFailed where what is written would go into a file that nobody finds any more, or that was cut."""
        if self._shared is not None:
            self._look()
        try:
            if identity(self._folder) == self._identity:
                return
        except OSError:
            pass
        raise StoreFailed(f"{self._folder / DATA} has been removed or replaced; restart to begin a new one")

    def behind(self) -> int:
        """See store.Store."""
        with self._failures():
            seen = [line.split()[-1] for line in self._env.readers().splitlines()[1:]]
            newest: int = self._env.info()["last_txnid"]
        return max((newest - int(number) for number in seen if number != IDLE), default=0)

    def check_readers(self) -> int:
        """See store.Store."""
        with self._failures():
            return int(self._env.reader_check())

    def sync(self) -> None:
        """See store.Store."""
        with self._failures():
            self._env.sync(True)

    def close(self) -> None:
        """See store.Store."""
        shared, self._shared = self._shared, None
        if shared is not None:
            self._begin = closed
            release(shared)
            os.close(self._file)
            self._file, self._look_at = -1, math.inf

    def forget_after_fork(self) -> None:
        """In a forked child: never touch the environment again, not even to close it."""
        self._shared = None
        self._begin = used_after_fork
        self._env = Forbidden()


class Forbidden:
    """Stands where an environment was."""

    def __getattr__(self, name: str) -> Any:
        raise UsedAfterFork("the cache cannot be used in a forked child; start a new process instead")


def used_after_fork(**_: object) -> Any:
    """Stands where `Environment.begin` was."""
    raise UsedAfterFork("the cache cannot be used in a forked child; start a new process instead")


def closed(**_: object) -> Any:
    """Stands where `Environment.begin` was."""
    raise lmdb.Error("the store is closed")


def forbid_in_child() -> None:
    """What `fork` runs in the child."""
    ENVIRONMENTS.clear()
    for store in list(STORES):
        store.forget_after_fork()


os.register_at_fork(after_in_child=forbid_in_child)
