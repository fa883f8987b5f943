"""`rowserve serve`: the HTTP server. Main thread; see `serving`."""

from __future__ import annotations

import sys
from typing import Any

import click

from rowserve.tools.options import cache_options, config_option, models_option


def named_models(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=PATH, each."""
    named: dict[str, str] = {}
    for pair in given:
        name, found, path = pair.partition("=")
        if not (found and name and path):
            raise click.BadParameter(f"{pair!r} is not of the form NAME=PATH")
        if name in named:
            raise click.BadParameter(f"{name} is named twice")
        named[name] = path
    return named


@click.command(short_help="Serve models over HTTP.")
@click.option(
    "--model",
    "model",
    multiple=True,
    metavar="NAME=PATH",
    callback=named_models,
    help="One model, by its folder. May be given several times.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="HOST:PORT[,profile=NAME]",
    help="Where to listen. May be given several times; a profile says which protocol answers where several want the "
    "same path: native, tensorflow-serving, kserve, torchserve, triton, mlserver.  [default: 127.0.0.1:8080]",
)
@click.option(
    "--grpc",
    metavar="HOST:PORT[,profile=NAME]",
    help="Where to serve gRPC: TensorFlow Serving's and the Open Inference Protocol's services. With the profile "
    "triton or mlserver the server goes by that name.  [default: nowhere]",
)
@models_option
@config_option
@cache_options
def serve(**flags: Any) -> None:
    """Serve models over HTTP, until a signal comes.

    A model is a folder with a SavedModel in it, or with one in each of its version folders 1, 2, ...; beside these,
    rowserve.toml is its card.

    \b
    rowserve serve --models models
    rowserve serve --model ranker=/data/ranker --model digits=/data/digits/3 --listen 0.0.0.0:8080
    rowserve serve --models models --listen :8501,profile=tensorflow-serving --grpc :8500
    rowserve serve --config rowserve.toml

    \b
    curl -F file=@cat.jpg http://127.0.0.1:8080/images/efficientnet_lite0
    curl --data-binary @rows.jsonl http://127.0.0.1:8080/rows/ranker

    SIGTERM and Ctrl-C end it gracefully: what runs is finished and the cache is written. Exit: 0 after that, 1 when
    time ran out, 2 when nothing could start.
    """
    from rowserve.tools.run_reactor import choose_reactor

    choose_reactor()
    from rowserve.tools.serving import serve_http

    sys.exit(serve_http(**flags))
