"""`infer` and `warm` through a running server: JSON rows to /rows, pictures to /images. Reactor thread.

`RemoteParser` works on the reader thread. A request carries one chunk; several are on their way at once. (The client at
hand reads no answer before its request is out, so one endless request would have to be held in memory.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import orjson
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent

from rowserve.handlers.problem import Problem
from rowserve.server.config import Config
from rowserve.server.units import Bytes
from rowserve.tools.bulk_job import Ready, Reply, refusals
from rowserve.tools.feed import Chunk
from rowserve.tools.options import Refused
from rowserve.tools.remote_answers import line_reply, picture_reply, problem_in
from rowserve.tools.remote_chunks import RemoteChunk, RemoteParser

log = logging.getLogger(__name__)
CONNECTIONS = 4
TRIES = 8
LONGEST_WAIT = 30.0
NDJSON = "application/x-ndjson"


class RemoteRun:
    """One model of one server. `wishes` are the query's signature, top and outputs.

    Raises Refused for what is no URL or no name.
    """

    def __init__(
        self, reactor: Any, server: str, model: str, wishes: Mapping[str, str], config: Config, *, printed: bool
    ) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Refused(f"--server {server}: write it as http://HOST:PORT")
        self._server = server.rstrip("/")
        self._path = model_path(model)
        self._wishes = {name: value for name, value in wishes.items() if value}
        self._headers = {} if config.cache.enabled else {"Cache-Control": "no-store"}
        self._largest_file = Bytes.parse(config.limits.body)
        self._printed = printed
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = CONNECTIONS
        self._client = HTTPClient(cast(IAgent, Agent(reactor, pool=pool)))
        self._reactor = reactor
        self._turns = DeferredSemaphore(CONNECTIONS)

    async def ready(self) -> Ready | None:
        """The door; None where there is no such server or model, and the log says so."""
        try:
            status, body = await self._post_rows(b"", "1")  # without rows it only waits for the disk
        except Exception as error:  # noqa: BLE001 - whatever keeps us from the server
            log.error("%s: %s", self._server, connection_fault(error))
            return None
        if status != 200:
            log.error("%s: %s", self._server, problem_in(status, body).detail)
            return None
        return Ready(RemoteParser(self._largest_file).chunks, self)

    def ask(self, chunk: Chunk) -> Reply | Deferred[Reply]:
        """See Door."""
        assert isinstance(chunk, RemoteChunk)
        if chunk.problems:
            return refusals(chunk, chunk.problems)
        return self._turns.run(lambda: Deferred.fromCoroutine(self._answered(chunk)))

    async def _answered(self, chunk: RemoteChunk) -> Reply:
        send = partial(self._post_rows, chunk.text, "0") if chunk.text else partial(self._post_pictures, chunk)
        try:
            status, body = await self._patiently(send)
        except Exception as error:  # noqa: BLE001 - these rows fail, others may not
            problem = Problem(502, connection_fault(error), title="No answer", reason="no_answer")
            return refusals(chunk, [problem] * chunk.rows)
        if chunk.text:
            return line_reply(chunk, status, body)
        return picture_reply(chunk, status, body)

    async def _patiently(self, send: Callable[[], Any]) -> tuple[int, bytes]:
        """Asks again where the server is too busy, in the time it says."""
        wait = 1.0
        for _ in range(TRIES):
            status, body = await send()
            if status != 503 or b"queue is full" not in body:
                break
            await deferLater(self._reactor, wait, lambda: None)
            wait = min(2 * wait, LONGEST_WAIT)
        return status, body

    async def _post_rows(self, lines: bytes, sync: str) -> tuple[int, bytes]:
        query = {"priority": "bulk", "sync": sync, **self._wishes}
        return await self._post("rows", query, data=lines, headers={"Content-Type": NDJSON, **self._headers})

    async def _post_pictures(self, chunk: RemoteChunk) -> tuple[int, bytes]:
        files = [
            ("file", (str(index), "application/octet-stream", BytesIO(upload)))
            for index, upload in enumerate(chunk.uploads)
        ]
        return await self._post("images", self._wishes, files=files, headers=self._headers)

    async def _post(self, route: str, query: Mapping[str, str], **content: Any) -> tuple[int, bytes]:
        url = f"{self._server}/{route}/{self._path}" + (f"?{urlencode(query)}" if query else "")
        response = await self._client.post(url, **content)
        return response.code, await response.content()

    def finish(self) -> Deferred[str]:
        """See Door: an empty request whose answer comes after the sync."""
        done: Deferred[Any] = Deferred.fromCoroutine(self._post_rows(b"", "1"))
        done.addCallbacks(synced, lambda failure: connection_fault(failure.value))
        return done


def synced(answer: tuple[int, bytes]) -> str:
    """What the server says of its sync."""
    status, body = answer
    if status == 200 and not body.strip():
        return ""
    try:
        return str(orjson.loads(body)["error"]["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return problem_in(status, body).detail


def model_path(model: str) -> str:
    """NAME or NAME/VERSION as the routes have it."""
    name, slash, version = model.partition("/")
    if not name or (slash and not version.isdecimal()):
        raise Refused(f"{model}: with --server, name the model as the server does: NAME or NAME/VERSION")
    return quote(name, safe="") + (f"/versions/{version}" if slash else "")


def connection_fault(error: BaseException) -> str:
    """Why there was no answer, in one line."""
    if isinstance(error, ConnectError):
        return "no server answers there; is it running?"
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    return f"the server broke off the connection: {error}".rstrip(": ")
