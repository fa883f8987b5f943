"""`python -m benchmarks`: runs the benchmarks, each in a process of its own, and prints the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.table import Figure, as_markdown, machine

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    *("hits", "file_size", "lone_row", "throughput", "uploads", "stall", "infer", "memory"),
    *("serialisation", "grpc_echo", "picture_memory", "unread"),
)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Small and rough: shows that everything runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def main(names: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure NAMES (all, if none is given), each against a bare limit taken in the same run."""
    began, busy, head = time.monotonic(), busy_seconds(), machine()
    if quick:
        head["quick"] = "small and rough: no figures to keep"
    figures, broken = [], []
    for name in names or NAMES:
        click.echo(f"{name} ...", err=True)
        try:
            figures += run(name, quick)
        except subprocess.CalledProcessError as error:
            broken.append(name)
            click.echo(f"{name} did not end well (exit {error.returncode})", err=True)
    spent = os.times()
    own = spent.children_user + spent.children_system
    cores = len(os.sched_getaffinity(0))
    head["minutes"] = f"{(time.monotonic() - began) / 60:.1f}"
    head["cores kept busy by others"] = f"{(busy_seconds() - busy - own) / (time.monotonic() - began):.2f} of {cores}"
    if as_json:
        told = [{**asdict(figure), "met": figure.met} for figure in figures]
        click.echo(json.dumps({"machine": head, "figures": told, "broken": broken}, indent=1))
    else:
        click.echo(", ".join(f"{name}: {value}" for name, value in head.items()))
        click.echo()
        click.echo(as_markdown(figures))
    sys.exit(1 if broken else 0)


def run(name: str, quick: bool) -> Iterator[Figure]:
    """The figures of one benchmark, as they come. Raises CalledProcessError."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            figure = Figure(**json.loads(line))
            told = f"  {figure.what}: {figure.value:.4g}{figure.unit} (wanted {figure.bound}; {figure.detail})"
            click.echo(told, err=True)
            yield figure
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command)


def busy_seconds() -> float:
    """Core seconds that anybody on this machine has used since it started."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    if sys.argv[1:2] == ["side_by_side"]:
        from benchmarks.side_by_side.__main__ import main as side_by_side

        side_by_side(sys.argv[2:], prog_name="python -m benchmarks side_by_side")
    if sys.argv[1:2] == ["regress"]:
        from benchmarks.regress import main as regress

        regress(sys.argv[2:], prog_name="python -m benchmarks regress")
    main()
