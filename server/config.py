"""The server's settings: rowserve.toml, and the flags that overrule it. Any thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rowserve.server.address import NATIVE, Address, check_profile
from rowserve.server.card import BadSettings
from rowserve.server.field_names import explained
from rowserve.server.origins import Authority, Origin
from rowserve.server.units import Bytes, Seconds

PAGE = "docs/operations.md"
LEAST_CACHE = 4 << 20


def cache_bytes(size: str) -> int:
    """The cap of the cache in bytes. Raises ValueError."""
    number = Bytes.parse(size)
    if number < LEAST_CACHE:
        raise ValueError(f"a cache has at least {Bytes.text(LEAST_CACHE)}; --no-cache goes without one")
    return number


class CacheConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[cache]: its folder (default: the platform's user cache folder + /rowserve), the cap of its file when that is
    made (default: 4GiB), and whether there is one at all."""

    folder: str = ""
    size: str = ""
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.size:
            cache_bytes(self.size)


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[limits]: what a client may ask of the server. Sizes such as "64MiB", durations such as "10s".

    `body`: of a request. `parts`: of a multipart upload. `pixels`: of a picture. `decoding`: memory of pictures while
    they are decoded, all together. `headers`: until they are complete. `idle`: between requests. `connections`: at
    once, 0 for as many as the limit of file descriptors allows. `body_rate`: bytes a second, on average, from a body's
    tenth second on. `queue_rows`, `queue_bytes`: what may wait for one model's graph. `unsent`: of answers that clients
    have not taken, all together. `load`: until a model that is still loading counts as broken. `stop`: until a graceful
    stop is cut short.
    """

    body: str = "64MiB"
    parts: int = 1000
    pixels: int = 50_000_000
    decoding: str = "1GiB"
    headers: str = "10s"
    idle: str = "60s"
    connections: int = 0
    body_rate: int = 1000
    queue_rows: int = 4096
    queue_bytes: str = "512MiB"
    unsent: str = "256MiB"
    load: str = "10m"
    stop: str = "30s"

    def __post_init__(self) -> None:
        for size in (self.body, self.decoding, self.queue_bytes, self.unsent):
            Bytes.parse(size)
        for duration in (self.headers, self.idle, self.load, self.stop):
            Seconds.parse(duration)
        for name in ("parts", "pixels", "body_rate", "queue_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.connections < 0:
            raise ValueError("connections must be at least 1, or 0 for what the limit of file descriptors allows")


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[http]: `profile` says which protocol answers where several want the same path. `hosts` are the names under which
    the server may be asked, `origins` those whose pages may ask it (see `origins`)."""

    profile: str = NATIVE
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_profile(self.profile)
        for host in self.hosts:
            Authority.entry(host)
        for origin in self.origins:
            Origin.entry(origin)


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """All of rowserve.toml. `models` is a folder of models; `model` maps names to single model folders.

    `listen` is HOST:PORT, or HOST:PORT,profile=NAME, or a list of these; `grpc` is one of these, where gRPC is served
    ("": nowhere).
    `intra_op_threads` (of one op) and `inter_op_threads` (ops side by side) are those of each model; 0: all cores, or
    one thread an op where that is quicker.
    """

    listen: str | list[str] = "127.0.0.1:8080"
    grpc: str = ""
    http: HttpConfig = HttpConfig()
    models: str = ""
    model: dict[str, str] = {}
    cache: CacheConfig = CacheConfig()
    limits: Limits = Limits()
    intra_op_threads: int = 0
    inter_op_threads: int = 0


def listening(config: Config) -> list[Address]:
    """Where HTTP is served, the first address first. Raises BadSettings."""
    said = [config.listen] if isinstance(config.listen, str) else config.listen
    return [Address.parse(text, config.http.profile) for text in said]


def read_config(file: Path | None) -> Config:
    """The settings in `file`, defaults where it is None. Raises BadSettings naming the file and the field."""
    if file is None:
        return Config()
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Config)
    except (msgspec.MsgspecError, ValueError, OSError) as error:
        raise BadSettings(f"{file}: {explained(error, Config, PAGE)}") from None


def override(config: Config, **flags: Any) -> Config:
    """The settings with those flags that were given (not None)."""
    return msgspec.structs.replace(config, **{name: value for name, value in flags.items() if value is not None})


def cache_folder(config: CacheConfig) -> Path:
    """Where the cache lies, for every command alike."""
    if config.folder:
        return Path(config.folder).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("rowserve", appauthor=False))
