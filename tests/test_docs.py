"""The documentation says what the program does: names are complete, links lead somewhere, commands run as printed.

Each line behind `$ ` in a ```console block is run, in order, in a folder of its own, with one server for all pages.
What stands below it must be what it prints, but for white space, the digits of decimals, and whatever `...` stands for.
```sh blocks are not run, but their options must exist. ```toml card and ```toml settings are read as what they say.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import click
import msgspec
import numpy as np
import pytest
from PIL import Image
from twisted.internet.task import Clock

from rowserve.cache.stats import CacheStats
from rowserve.server.address import NATIVE
from rowserve.server.admission import Admission
from rowserve.server.card import Card, read_card
from rowserve.server.config import Config, read_config
from rowserve.server.decode_memory import DecodeMemory
from rowserve.server.metrics import Metrics
from rowserve.server.profiles import router
from rowserve.server.stall import StallGauge
from rowserve.server.unsent import Unsent
from rowserve.tools.cli import main
from rowserve.tools.digits import digit_scans

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
START_SECONDS = 240  # a bound, not a figure: a server that is not up by then never will be
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"-?[0-9]+\.[0-9]+(?:e-?[0-9]+)?"


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind its fence, its text, and the line it begins at."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass
class Step:
    """A command of a console block and what it shall print."""

    command: str
    printed: list[str] = field(default_factory=list)


def blocks(page: Path, *kinds: str) -> list[Block]:
    """The page's blocks of these kinds, of all where none is given."""
    text = page.read_text(encoding="utf-8")
    found = [Block(page, text.count("\n", 0, m.start()) + 1, m[1].strip(), m[2]) for m in FENCE.finditer(text)]
    return [block for block in found if not kinds or block.kind in kinds]


def all_blocks(*kinds: str) -> list[Any]:
    """The blocks of all pages as test parameters."""
    return [pytest.param(block, id=str(block)) for page in PAGES for block in blocks(page, *kinds)]


def steps(block: Block) -> list[Step]:
    """The commands of a console block; a line that ends in a backslash, or begins with `> `, goes on."""
    found: list[Step] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:]))
        elif found and not found[-1].printed and (found[-1].command.endswith("\\") or line.startswith("> ")):
            found[-1].command += "\n" + line.removeprefix("> ")
        else:
            assert found, f"{block}: output before any command"
            found[-1].printed.append(line)
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


# Names


def leaves(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, default) of each field of a settings struct."""
    for spec in msgspec.structs.fields(kind):
        default = spec.default if spec.default is not msgspec.NODEFAULT else spec.default_factory()
        if isinstance(default, msgspec.Struct):
            yield from leaves(type(default), f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}", default


def table_rows(page: str) -> dict[str, str]:
    """The rows of a page's tables by what their first cell has in `code`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return {match[1]: match[0] for match in re.finditer(r"^\| `([^`]+)`.*\|$", text, re.MULTILINE)}


def shown(default: Any) -> str:
    """A default as the tables have it."""
    if isinstance(default, str):
        return f'`"{default}"`'
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`{list(default)}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"


@pytest.mark.parametrize(("page", "kind"), [("operations.md", Config), ("models.md", Card)])
def test_every_setting_is_there_with_its_default(page, kind):
    rows = table_rows(page)
    for name, default in leaves(kind):
        assert name in rows, f"docs/{page} has no row for `{name}`"
        if default not in ("", None, {}):
            assert shown(default) in rows[name], f"docs/{page}: `{name}` has the default {shown(default)}"


def test_no_setting_is_made_up():
    known = {name for kind in (Config, Card) for name, _ in leaves(kind)}
    told = {name for page in ("operations.md", "models.md") for name in table_rows(page)}
    dotted = {name for name in told if re.fullmatch(r"(picture|labels|batch|cache|limits|model)\.[a-z_]+", name)}
    assert dotted <= known


def metric_names() -> set[str]:
    """The names that a server exposes."""
    metrics = Metrics()
    metrics.cache_stats = CacheStats
    metrics.stall = StallGauge(Clock())
    metrics.registry.register(Unsent(Clock()))
    metrics.registry.register(DecodeMemory())
    metrics.registry.register(Admission())
    metrics.rows("m", 1, "rows").hits(1)
    metrics.request("/livez", 200, 0.0)
    text = metrics.exposition().decode()
    return {name for name in re.findall(r"^# TYPE (rowserve_\w+)", text, re.MULTILINE) if not name.endswith("_created")}


def test_every_metric_is_there_and_none_is_made_up():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(rowserve_\w+)", text, re.MULTILINE))
    names = metric_names()
    assert len(names) > 10
    assert told == names


@pytest.mark.parametrize("name", NAMES)
def test_metrics_named_anywhere_exist(name):
    page = next(page for page in PAGES if page.name == name)
    told = set(re.findall(r"\browserve_[a-z_]+", page.read_text(encoding="utf-8")))
    parts = {f"{metric}{tail}" for metric in metric_names() for tail in ("", "_bucket", "_sum", "_count")}
    assert told <= parts


def test_every_route_and_parameter_is_there():
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    ours = ("native", "probes", "tensorflow_serving")
    for route in (route for route in router(NATIVE).routes if route.table.name in ours):
        assert f"`{route.method} {route.path}`" in text
        for parameter in route.query:
            assert f"`{parameter.name}`" in text


def commands(group: click.Group = main, prefix: str = "rowserve") -> Iterator[tuple[str, click.Command]]:
    """(words, command) of each command that does something."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def options(command: click.Command) -> set[str]:
    """The long names of a command's options."""
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("--")}


def section(words: str) -> str:
    """The part of command-line.md about a command; that of its group, where it has none of its own."""
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    while words:
        found = re.search(rf"^#+ {re.escape(words)}\n.*?(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
        if found:
            return found[0]
        words = words.rpartition(" ")[0]
    return ""


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_every_option_is_there(words):
    command = dict(commands())[words]
    told = section(words)
    assert words in told
    shared = section("Options that all commands share")
    for option in options(command) - {"--help"}:
        assert f"`{option}" in told + shared, f"{words} {option} is not in docs/command-line.md"


def spoken(block: Block) -> Iterator[list[str]]:
    """The rowserve commands of a block, as words."""
    text = "\n".join(step.command for step in steps(block)) if block.kind == "console" else block.text
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\||;|&&|<|>", line.partition(" #")[0]):
            words = shlex.split(part) if "rowserve" in part else []
            if words[:1] == ["rowserve"] and len(words) > 1 and not words[1].startswith("-"):
                yield words


@pytest.mark.parametrize("block", all_blocks("sh", "console"))
def test_commands_and_options_in_examples_exist(block):
    known = dict(commands())
    for words in spoken(block):
        name = max((name for name in known if words[: len(name.split())] == name.split()), key=len, default="")
        assert name, f"{block}: there is no {' '.join(words[:3])}"
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= options(known[name]), f"{block}: {' '.join(words)}"


# Files and links


@pytest.mark.parametrize("block", all_blocks("toml card", "toml settings", "toml"))
def test_settings_are_taken(block, tmp_path):
    (tmp_path / "rowserve.toml").write_text(block.text, encoding="utf-8")
    assert block.kind != "toml", f"{block}: say whether it is a card or settings"
    if block.kind == "toml card":
        assert read_card(tmp_path) != Card() or not block.text
    else:
        assert read_config(tmp_path / "rowserve.toml") != Config()


@pytest.mark.parametrize("block", all_blocks("python", "json"))
def test_code_and_json_parse(block):
    if block.kind == "json":
        json.loads(block.text.replace("...", "0"))
    else:
        compile(block.text, str(block), "exec")


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*NAMES, "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    page = next(page for page in [*PAGES, ROOT / name] if page.name == name)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{name} links to {target}"


def test_every_page_is_linked_from_the_first():
    told = re.findall(r"\]\((docs/[\w-]+\.md)\)", prose(PAGES[0]))
    assert {ROOT / each for each in told} == set(PAGES[1:])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one_that_systemd_takes(tmp_path):
    unit = (ROOT / "deploy" / "rowserve.service").read_text(encoding="utf-8")
    installed = "/opt/rowserve/bin/rowserve"
    assert f"ExecStart={installed} serve " in unit
    here = tmp_path / "rowserve.service"
    here.write_text(unit.replace(installed, str(Path(sys.executable).with_name("rowserve"))), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "rowserve.service" in done.stderr) == (0, False), done.stderr


# Commands


@dataclass
class Place:
    """Where commands run: a folder for each page, one server for all (at no address before it is started)."""

    folder: Path
    address: str
    environment: dict[str, str]

    def page(self, name: str) -> Path:
        """The folder of a page, with pictures and rows that no other page has: what is a hit there is its own doing."""
        folder = self.folder / name
        if folder.exists():
            return folder
        folder.mkdir()
        for shared in ("models", "rowserve.toml"):
            (folder / shared).symlink_to(self.folder / shared)
        samples = one_of_each(NAMES.index(name))
        (folder / "scans").mkdir()
        for digit, scan in samples.items():
            picture = Image.fromarray((scan * 255 / 16).round().astype(np.uint8))
            picture.save(folder / f"{digit}.png")
            if digit in (0, 1, 2):
                picture.save(folder / "scans" / f"{digit}.png")
        rows = [json.dumps(samples[digit].astype(int).tolist()) for digit in (4, 5, 6)]
        (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        predict = json.dumps({"instances": [samples[digit].tolist() for digit in (8, 9)]})
        (folder / "predict.json").write_text(predict, encoding="utf-8")
        return folder

    def settle(self) -> None:
        """All that the server has answered is on the disk, where other processes find it."""
        url = f"http://{self.address}/rows/digits?sync=1"
        with urlopen(Request(url, json.dumps([[0] * 8] * 8).encode(), method="POST"), timeout=60) as answer:
            answer.read()

    def run(self, command: str, folder: Path, status: int) -> tuple[str, int]:
        """What a command prints, to stdout and stderr, and its status. `$?` is that of the one before."""
        if command.startswith("rowserve") and self.address:
            self.settle()
        command = command.replace("127.0.0.1:8080", self.address) if self.address else command
        done = subprocess.run(
            ["bash", "-c", f"(exit {status})\n{command}"],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            check=False,
        )
        told = done.stdout.decode().replace("\r", "")
        return told.replace(self.address, "127.0.0.1:8080") if self.address else told, done.returncode


def one_of_each(which: int) -> dict[int, np.ndarray]:
    """A scan of each digit: the first ones, the second ones, and so on; the model has seen them and is sure of them."""
    scans, digits = digit_scans()
    return {digit: scans[np.flatnonzero(digits == digit)[which]] for digit in range(10)}


@pytest.fixture(scope="module")
def place(digits, tmp_path_factory) -> Iterator[Place]:
    """A workshop with the digits model under the README's card, and a server."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("the documentation's commands want bash and curl")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(digits, folder / "models" / "digits")
    (card,) = blocks(PAGES[0], "toml card")
    (folder / "models" / "digits" / "rowserve.toml").write_text(card.text, encoding="utf-8")
    (settings,) = (block for block in blocks(ROOT / "docs" / "operations.md", "toml settings")[:1])
    (folder / "rowserve.toml").write_text(settings.text, encoding="utf-8")
    (folder / ".curlrc").write_text("silent\nshow-error\n", encoding="utf-8")
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": bin_folder + os.pathsep + os.environ["PATH"],
        "XDG_CACHE_HOME": str(folder / "cache"),
        "CURL_HOME": str(folder),
        "COLUMNS": "100",
        "NO_PROXY": "*",
    }
    command = ["rowserve", "serve", "--models", "models", "--listen", "127.0.0.1:0"]
    with serving(command, folder, environment) as address:
        yield Place(folder, address, environment)


@contextmanager
def serving(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A server: where it serves."""
    server = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    bound = threading.Timer(START_SECONDS, server.kill)
    bound.start()
    assert server.stderr is not None
    said: list[str] = []
    for line in server.stderr:
        said.append(line)
        if found := re.search(r"serving .* on http://(\S+)", line):
            break
    else:
        pytest.fail(f"the server did not start: {''.join(said)}")
    bound.cancel()
    drain = threading.Thread(target=server.stderr.read, daemon=True)
    drain.start()
    try:
        yield found[1]
    finally:
        server.terminate()
        server.wait(60)
        drain.join(60)


def pattern(printed: str) -> re.Pattern[str]:
    """What a printed text allows: any text for `...`, any decimal for a decimal, any white space, or none."""
    parts = []
    for part in re.split(rf"(\.\.\.|{NUMBER}|\s+)", printed):
        if part == "...":
            parts.append(".*")
        elif re.fullmatch(NUMBER, part):
            parts.append(rf"({NUMBER})")
        elif part.strip():
            parts.append(r"\s*".join(map(re.escape, part)))
    return re.compile(r"\s*" + r"\s*".join(parts) + r"\s*", re.DOTALL)


def same(printed: str, got: str) -> bool:
    """Whether `got` is what the page says."""
    wanted = [float(number) for number in re.findall(NUMBER, printed)]
    found = pattern(printed).fullmatch(got)
    numbers = [] if found is None else [float(number) for number in found.groups()]
    return found is not None and all(
        math.isclose(a, b, rel_tol=0.1, abs_tol=1e-3) for a, b in zip(wanted, numbers, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [page.name for page in PAGES if blocks(page, "console")])
def test_commands_print_what_the_page_says(name, place):
    page = next(page for page in PAGES if page.name == name)
    folder = place.page(name)
    wrong: list[str] = []
    for block in blocks(page, "console"):
        status = 0
        for step in steps(block):
            got, status = place.run(step.command, folder, status)
            if not same("\n".join(step.printed), got):
                wrong.append(f"{block}\n$ {step.command}\n{got}")
    assert not wrong, "\n".join(wrong)


def pasted() -> Iterator[tuple[Block, Step]]:
    """What the first page tells somebody to do who has a folder, a model or none, and two terminals."""
    page = PAGES[0]
    text = page.read_text(encoding="utf-8")
    first, last = (text[: text.index(f"## {heading}")].count("\n") for heading in ("Serve your own", "The cache"))
    for block in blocks(page, "sh", "console"):
        if first < block.line <= last:
            yield from ((block, step) for step in (steps(block) if block.kind == "console" else [Step(block.text)]))


@pytest.mark.slow
def test_the_first_page_can_be_pasted_into_an_empty_folder(place, tmp_path):
    pytest.importorskip("sklearn")
    environment = {**place.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "new").mkdir()
    here = Place(tmp_path / "new", "", environment)
    wrong: list[str] = []
    with ExitStack() as until_the_end:
        for block, step in pasted():
            if step.command.startswith("rowserve serve"):
                words = [*shlex.split(step.command), "--listen", "127.0.0.1:0"]
                here.address = until_the_end.enter_context(serving(words, here.folder, environment))
                continue
            got, status = here.run(step.command, here.folder, 0)
            if status or (step.printed and not same("\n".join(step.printed), got)):
                wrong.append(f"{block}\n$ {step.command}\n{got}")
    assert not wrong, "\n".join(wrong)
    (card,) = blocks(PAGES[0], "toml card")
    assert read_card(here.folder / "models" / "digits") == msgspec.toml.decode(card.text, type=Card)


@pytest.mark.parametrize(
    ("printed", "got", "equal"),
    [
        ('{"a": 1,\n "b": 0.5}', '{"a":1,"b":0.50001}', True),
        ('{"a": 1, "b": 0.5}', '{"a":1,"b":0.7}', False),
        ('{"a": 1}', '{"a":2}', False),
        ("a ... d", "a b c d", True),
        ("a ...", "b c", False),
        ("", "a", False),
    ],
)
def test_printed_texts_are_compared_loosely_but_compared(printed, got, equal):
    assert same(printed, got) is equal
