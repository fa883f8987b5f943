"""`rowserve cache ...`: look into the cache, check it, empty it, resize it. Main thread; see `cache_tables`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rowserve.tools.options import FOLDER, config_option, models_option

Command = TypeVar("Command", bound=Callable[..., Any])


def place(command: Command) -> Command:
    """Which cache."""
    folder = click.option(
        "--cache", "cache_folder", type=FOLDER, metavar="DIR", help="Where the cache lies, the same for all commands."
    )
    return folder(config_option(command))


def as_json(command: Command) -> Command:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(command)


def generation(command: Command) -> Command:
    """--generation."""
    text = "Only rows of this generation, by its tag as `stat` shows it."
    return click.option("--generation", default="", metavar="TAG", help=text)(command)


@click.group(short_help="Look into the cache, check it, empty it.")
def cache() -> None:
    """Look into the cache of finished rows, check it, empty it, or give it another cap.

    A server, `infer` and `warm` may go on meanwhile.

    \b
    rowserve cache stat
    rowserve cache explain efficientnet_lite0 cat.jpg --models models
    rowserve cache resize 20GiB
    """


@cache.command(short_help="How full it is, and of what.")
@place
@as_json
def stat(**flags: Any) -> None:
    """Print how full the cache is, and how many rows each model has in it."""
    from rowserve.tools.cache_tables import print_stat

    print_stat(**flags)


@cache.command(short_help="List the rows, oldest first.")
@place
@generation
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
@as_json
def ls(**flags: Any) -> None:
    """List the rows and the uploads that lead to them, oldest first.

    \b
    rowserve cache ls --limit 20
    rowserve cache ls --generation 0a1b2c3d --json
    """
    from rowserve.tools.cache_tables import print_list

    print_list(**flags)


@cache.command(short_help="Check the whole file.")
@place
@click.option("--drop", is_flag=True, help="Delete the damaged ones.")
@as_json
def verify(**flags: Any) -> None:
    """Read every page of the file, the free list too, and every record, and check them.

    Exit: 0 all are whole, 1 some are damaged (they are never served).
    """
    from rowserve.tools.cache_tables import print_verify

    sys.exit(print_verify(**flags))


@cache.command(short_help="Drop all rows, or those of one generation.")
@place
@generation
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(yes: bool, generation: str, **flags: Any) -> None:
    """Drop all rows, or those of one generation. The secret stays, so that keys stay what they are.

    \b
    rowserve cache purge --generation 0a1b2c3d
    rowserve cache purge --yes
    """
    from rowserve.tools.cache_tables import print_purge

    if not yes:
        what = f"all rows of generation {generation}" if generation else "all rows of all models"
        click.confirm(f"Drop {what}?", abort=True, err=True)
    print_purge(generation=generation, **flags)


@cache.command(short_help="How a row's key comes about, and where the row stands.")
@click.argument("model")
@click.argument("input", metavar="INPUT")
@click.option("--signature", default="", metavar="NAME", help="Of a model that has several.")
@models_option
@place
@as_json
def explain(**flags: Any) -> None:
    """Print the parts that the key of a row is made of, and whether the row is in the cache.

    INPUT is the path of a picture or a JSON row, as `infer` takes them; - reads it from stdin.

    \b
    rowserve cache explain efficientnet_lite0 cat.jpg --models models
    rowserve cache explain ./ranker '[0.1, 0.2, 0.3]'
    """
    from rowserve.tools.cache_tables import print_explanation

    print_explanation(**flags)


@cache.command(short_help="Give the cache another cap.")
@click.argument("size")
@place
def resize(size: str, cache_folder: Path | None, config: Path | None) -> None:
    """Give the cache another cap, such as 500MiB or 20GiB.

    A cap that the file was not laid out for takes a copy of it, and nobody else may have it open then.
    """
    from rowserve.tools.cache_tables import print_resize

    print_resize(size=size, cache_folder=cache_folder, config=config)
