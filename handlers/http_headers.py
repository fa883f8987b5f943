"""HTTP headers that mean the same on every HTTP route: what a client asks of the cache, and what it is told.

Pure values, safe on any thread; on the path of every request, so nothing is done that the headers do not ask
for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rowserve.handlers.items import NO_WISH, Answer, CachePolicy, Options, Outcome, Priority, Timing
from rowserve.handlers.problem import Problem

TOLD = (Outcome.HIT, Outcome.COLLAPSED, Outcome.COMPUTED, Outcome.BYPASSED, Outcome.FAILED)
# A number above 0, with few enough digits to be neither 0 nor infinite when it is read.
SECONDS = re.compile(r"(?=[0-9.]*[1-9])[0-9]{1,15}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
HIT = Outcome.HIT  # to look it up in its class costs a tenth of a microsecond
ALL_HIT = "rowserve; hit"
WRITTEN = ("gzip", "deflate")  # the content codings that answers may come in


@lru_cache(maxsize=64)
def plain_options(protocol: str, priority: Priority) -> Options:
    """The options of a request that has no wishes."""
    return Options(protocol, priority)


def request_options(headers: Mapping[str, str], protocol: str, priority: Priority = Priority.INTERACTIVE) -> Options:
    """The options that the headers (names in lower case) ask for. Raises Problem 400."""
    wishes, timeout = headers.get("cache-control"), headers.get("request-timeout")
    throw_away = headers.get("rowserve-throw-away")
    if wishes is None and timeout is None and throw_away is None:
        return plain_options(protocol, priority)
    return Options(
        protocol,
        priority,
        None if timeout is None else request_timeout(timeout),
        NO_WISH if wishes is None and throw_away is None else cache_policy(wishes or "", throw_away),
    )


@lru_cache(maxsize=256)
def cache_policy(value: str, throw_away: str | None = None) -> CachePolicy:
    """A request's Cache-Control, where directives that mean nothing here are passed over, and its Rowserve-Throw-Away.
    Raises Problem 400."""
    if throw_away not in (None, "0", "1"):
        raise Problem(400, f"Rowserve-Throw-Away takes 1 or 0, not {throw_away[:40]!r}")
    wishes: dict[str, str] = {}
    for directive in value.split(","):
        name, _, argument = directive.partition("=")
        wishes[name.strip().lower()] = argument.strip().strip('"')
    return CachePolicy(
        no_store="no-store" in wishes,
        no_cache="no-cache" in wishes,
        only_if_cached="only-if-cached" in wishes,
        max_age=max_age(wishes["max-age"]) if "max-age" in wishes else None,
        throw_away=throw_away == "1",
    )


def max_age(seconds: str) -> float:
    """Whole seconds, as RFC 9111 writes them."""
    if not (seconds.isascii() and seconds.isdigit()):
        raise Problem(400, f"Cache-Control: max-age takes a number of whole seconds, not {seconds[:40]!r}")
    return float(seconds[:18])


def request_timeout(value: str) -> float:
    """Seconds. Raises Problem 400 unless it is a positive, finite number."""
    if SECONDS.fullmatch(value) is None:
        raise Problem(400, f"Request-Timeout takes a positive number of seconds, not {value[:40]!r}")
    return float(value)


def cache_status(answer: Answer) -> str:
    """RFC 9211: `hit` where every row was one, `fwd=bypass` past the cache, `partial` where some were hits, else why
    none was: `miss`, `request` or `stale`."""
    outcomes = answer.outcomes
    if len(outcomes) == 1:
        return status_of_one(outcomes[0], answer.forward)
    hits = outcomes.count(HIT)
    if hits == len(outcomes):
        return ALL_HIT
    return status_of(outcomes, hits, answer.forward)


@lru_cache(maxsize=3 * len(Outcome))
def status_of_one(outcome: Outcome, forward: str) -> str:
    """The same of a single row."""
    return ALL_HIT if outcome is HIT else status_of([outcome], 0, forward)


def status_of(outcomes: Sequence[Outcome], hits: int, forward: str) -> str:
    """The same where not all are hits."""
    counts = [(outcome, outcomes.count(outcome)) for outcome in TOLD]
    detail = " ".join(f"{outcome.value}={count}" for outcome, count in counts if count)
    if Outcome.BYPASSED in outcomes:
        forwarded = "bypass"
    else:
        forwarded = "partial" if hits else forward
    return f'rowserve; fwd={forwarded}; detail="{detail}"'


def server_timing(timing: Timing) -> str:
    """Where the time went, in milliseconds."""
    return "decode;dur=%.3f, cache;dur=%.3f, queue;dur=%.3f, graph;dur=%.3f" % (  # noqa: UP031  (twice as fast as f"")
        timing.decode * 1e3,
        timing.cache * 1e3,
        timing.queue * 1e3,
        timing.graph * 1e3,
    )


def answer_headers(answer: Answer, content_type: str) -> Sequence[tuple[str, str]]:
    """The headers that every answer with rows carries."""
    timing = answer.timing
    if answer.outcomes.count(HIT) == len(answer.outcomes) and not (timing.graph or timing.decode or timing.queue):
        return headers_of_hits(content_type, round(timing.cache * 1e6))
    return headers_of(content_type, cache_status(answer), timing)


@lru_cache(maxsize=1000)
def headers_of_hits(content_type: str, microseconds: int) -> Sequence[tuple[str, str]]:
    """The same where all rows were in the cache: many such answers take equally long, to the microsecond."""
    return headers_of(content_type, ALL_HIT, Timing(cache=microseconds / 1e6))


def headers_of(content_type: str, status: str, timing: Timing) -> Sequence[tuple[str, str]]:
    """Those three."""
    return (("Content-Type", content_type), ("Cache-Status", status), ("Server-Timing", server_timing(timing)))


@lru_cache(maxsize=64)
def response_coding(accepted: str) -> str:
    """gzip, deflate, or "" for none: what an Accept-Encoding likes best, gzip where it likes both."""
    likes = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        likes[name.strip()] = quality(weight)
    best = max(WRITTEN, key=lambda coding: likes.get(coding, 0.0))
    return best if likes.get(best, 0.0) > 0 and likes[best] >= likes.get("identity", 0.0) else ""


def quality(weight: str) -> float:
    """The number in `q=0.5`; 1 where there is none, 0 where it cannot be read."""
    name, _, value = weight.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
