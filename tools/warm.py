"""`rowserve warm`: fills the cache ahead of time. Main thread; see `bulk_run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from rowserve.tools.options import bulk_options


@click.command(short_help="Fill the cache ahead of time.")
@click.argument("model")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@bulk_options
def warm(**flags: Any) -> None:
    """Compute and keep the rows of each SOURCE, so that servers and `infer` find them.

    MODEL is NAME or NAME/VERSION under --models, or the path of a model folder. SOURCE is a folder (all pictures in it
    and below), a glob, a .jsonl file of rows, a .npy file (an array of rows), a .npz file (one such array for each
    input, by name), or any other file: one path of a picture on each line.

    \b
    rowserve warm efficientnet_lite0 photos/ --models models
    rowserve warm efficientnet_lite0 'photos/**/*.jpg' --models models
    rowserve warm ranker yesterday.jsonl features.npy --server http://127.0.0.1:8080

    Exit: 0 all rows are in the cache, on disk; 1 some are not; 2 nothing could start, or go on.
    """
    from rowserve.tools.bulk_run import warm_sources

    sys.exit(warm_sources(**flags))
