"""The options that commands share, and the settings that they make. Main thread.

Imports nothing slow: every command's `--help` runs through here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rowserve.server.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


class Refused(click.ClickException):
    """The command cannot start: one line on stderr, exit 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Prints the line."""
        click.echo(f"rowserve: {' '.join(self.message.split())}", err=True)


def cache_options(command: Command) -> Command:
    """--cache, --cache-size and --no-cache."""
    for option in (
        click.option("--no-cache", is_flag=True, help="Neither look up nor keep any row."),
        click.option(
            "--cache-size", metavar="SIZE", help="The cap of a cache that is made now, such as 500MiB.  [default: 4GiB]"
        ),
        click.option(
            "--cache",
            "cache_folder",
            type=FOLDER,
            metavar="DIR",
            help="Where the cache lies, the same for all commands.",
        ),
    ):
        command = option(command)
    return command


def config_option(command: Command) -> Command:
    """--config."""
    return click.option("--config", type=FILE, metavar="FILE", help="Settings; the flags overrule them.")(command)


def models_option(command: Command) -> Command:
    """--models."""
    return click.option(
        "--models", type=FOLDER, metavar="DIR", help="A folder of models, as DIR/NAME/VERSION/."
    )(command)


def bulk_options(command: Command) -> Command:
    """What `infer` and `warm` share."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Say how many rows the cache has; compute nothing."),
        click.option("--signature", default="", metavar="NAME", help="Of a model that has several."),
        click.option("--server", metavar="URL", help="Go through a running server instead of loading the model here."),
    ):
        command = option(command)
    return models_option(config_option(cache_options(command)))


def settings(
    config: Path | None = None,
    cache_folder: Path | None = None,
    cache_size: str | None = None,
    no_cache: bool = False,
    **flags: Any,
) -> Config:
    """The settings in the file, and over them the flags that were given. Raises Refused."""
    import msgspec

    from rowserve.server.card import BadSettings
    from rowserve.server.config import cache_bytes, override, read_config

    try:
        settings = read_config(config)
        if cache_size is not None:
            cache_bytes(cache_size)
    except BadSettings as error:
        raise Refused(str(error)) from None
    except ValueError as error:
        raise Refused(f"--cache-size: {error}") from None
    cache = settings.cache
    cache = msgspec.structs.replace(
        cache,
        folder=str(cache_folder) if cache_folder else cache.folder,
        size=cache_size or cache.size,
        enabled=cache.enabled and not no_cache,
    )
    return override(settings, cache=cache, **flags)
