"""The command as a whole: quick to answer, with help that can be followed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from rowserve.tools import lean_reactor
from rowserve.tools.cli import main

SLOW = {"numpy", "twisted", "tensorflow", "lmdb", "PIL", "msgspec", "prometheus_client", "treq", "klein", "tqdm"}
COMMANDS = [(), *((name,) for name in main.commands), *(("cache", n) for n in main.commands["cache"].commands)]  # type: ignore[attr-defined]


def test_the_version_says_whether_it_is_compiled() -> None:
    told = CliRunner().invoke(main, ["--version"]).output
    kind = "not compiled" if str(lean_reactor.__file__).endswith(".py") else "compiled"
    assert re.fullmatch(rf"rowserve, version \d+\.\d+\.\d+ \({kind}\)\n", told)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_imports_nothing_slow(command: tuple[str, ...]) -> None:
    code = f"""
import sys, rowserve.tools.cli
try: rowserve.tools.cli.main({[*command, "--help"]!r})
finally: print("imported", *sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, imported = ran.stdout.rpartition("imported")
    assert "Usage:" in text
    assert not SLOW & set(imported.split())


@pytest.mark.parametrize("command", [c for c in COMMANDS if c in {(), *((n,) for n in main.commands)}], ids=" ".join)
def test_help_has_examples(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*command, "--help"]).output
    assert re.search(r"^ +(.*\| )?rowserve " + " ".join(command), shown, re.MULTILINE)


def test_every_command_takes_the_cache_options() -> None:
    for name, command in main.commands.items():
        names = {option for parameter in command.params for option in parameter.opts}
        if name not in ("cache", "bench"):  # the one has subcommands, the other only speaks with a server
            assert {"--cache", "--cache-size", "--no-cache"} <= names, name


def test_a_bad_size_and_a_bad_config_are_told_in_one_line(tmp_path: object) -> None:
    for arguments, word in (
        (["infer", "m", "--cache-size", "lots"], "--cache-size"),
        (["infer", "m", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (["serve", "--config", "/nowhere.toml"], "/nowhere.toml"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1
        assert word in done.stderr


@pytest.mark.parametrize("pair", ["name", "=path", "name=", "x=1"])
def test_a_model_is_named_with_its_path(pair: str) -> None:
    done = CliRunner().invoke(main, ["serve", "--model", pair, "--model", "x=2"])
    assert done.exit_code == 2
    assert "NAME=PATH" in done.stderr or "named twice" in done.stderr
