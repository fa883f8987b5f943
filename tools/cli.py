"""`rowserve`, the command. Main thread.

It imports the commands' options only: what a command needs to do its work is imported when that begins, so that
`rowserve --help` answers at once.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import click

from rowserve.tools.bench import bench
from rowserve.tools.cache_admin import cache
from rowserve.tools.demo import demo
from rowserve.tools.infer import infer
from rowserve.tools.serve import serve
from rowserve.tools.warm import warm


def built() -> str:
    """Whether what every row passes through was compiled when rowserve was installed."""
    one_of_them = Path(__file__).with_name(f"lean_reactor{EXTENSION_SUFFIXES[0]}")
    return "compiled" if one_of_them.exists() else "not compiled"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="All commands share one cache of finished rows: what one of them has answered, the others find.",
)
@click.version_option(
    package_name="rowserve", prog_name="rowserve", message=f"%(prog)s, version %(version)s ({built()})"
)
def main() -> None:
    """Serve TensorFlow models row by row: one session, batches across clients, every answer kept.

    \b
    rowserve demo                                     a real model on real photos, in a minute
    rowserve serve --models models                    over HTTP, on 127.0.0.1:8080
    ls photos/*.jpg | rowserve infer efficientnet_lite0 --models models
    rowserve warm efficientnet_lite0 photos/ --models models
    """


for command in (serve, infer, warm, cache, bench, demo):
    main.add_command(command)


if __name__ == "__main__":
    main()
