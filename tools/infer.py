"""`rowserve infer`: lines on stdin, one JSON object for each on stdout. Main thread; see `bulk_run`."""

from __future__ import annotations

import sys
from typing import Any

import click

from rowserve.tools.options import bulk_options


@click.command(short_help="Answer the lines on stdin, one JSON object each.")
@click.argument("model")
@click.option(
    "--input",
    "mode",
    type=click.Choice(["auto", "paths", "json"]),
    default="auto",
    show_default=True,
    help="What a line is: the path of a picture, or a JSON row.",
)
@click.option("--outputs", default="", metavar="A,B", help="Outputs to print as raw arrays.")
@click.option(
    "--top", type=click.IntRange(min=0), metavar="K", help="Classes to print, where there are labels.  [default: 5]"
)
@bulk_options
def infer(**flags: Any) -> None:
    """Answer each line on stdin with one JSON object on stdout, in order.

    MODEL is NAME or NAME/VERSION under --models, or the path of a model folder. A line is the path of a picture, or a
    JSON row: the value itself where the model has one input, else an object of input name to value.

    \b
    ls photos/*.jpg | rowserve infer efficientnet_lite0 --models models
    echo '[0.1, 0.2, 0.3]' | rowserve infer ./ranker
    echo '{"user": 7, "item": [1, 2]}' | rowserve infer ./ranker --outputs score
    rowserve infer ranker --server http://127.0.0.1:8080 < rows.jsonl > answers.jsonl
    rowserve infer ranker --models models --dry-run < rows.jsonl

    Finished rows are kept, so a run that was stopped and is started again only computes the rest.

    Exit: 0 all rows were answered, 1 some failed, 2 nothing could start, or go on.
    """
    from rowserve.tools.bulk_run import infer_stdin

    sys.exit(infer_stdin(**flags))
