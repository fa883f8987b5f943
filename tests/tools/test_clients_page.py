"""docs/clients.md: every snippet runs as it stands, against one server, and every command of its table is one.

Only addresses are replaced. What stands behind `# ` on a line that prints is what it prints, but for `...`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rowserve.server.address import PROFILE_NAMES
from rowserve.server.config import Config
from rowserve.server.profiles import router
from rowserve.server.routing import ANY
from rowserve.tools.serve import serve
from tests.test_docs import Block, blocks, same, steps
from tests.tools.clients import client
from tests.tools.digits_server import digits_models, digits_server, picture, scan
from tests.tools.processes import END_SECONDS, environment

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
TEXT = PAGE.read_text(encoding="utf-8")
PYTHON = blocks(PAGE, "python")
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
IMPORTED = re.compile(r"^(?:import|from) ([\w.]+)", re.MULTILINE)
OWN = ("grpc", "numpy", "PIL", "base64", "tensorflow", "requests")
SERVERS = ("GraphPipe", "TensorFlow Serving", "Triton", "OpenVINO Model Server", "TorchServe", "KServe", "MLServer")


@dataclass(frozen=True)
class Workshop:
    """A folder with scans of the digits, and where the server listens."""

    folder: Path
    http: str
    kserve: str
    grpc: str

    def addressed(self, text: str) -> str:
        """The text with the addresses of the server in the place of the page's."""
        http = self.kserve if "profile=kserve" in text else self.http
        return text.replace("127.0.0.1:8080", http.removeprefix("http://")).replace("127.0.0.1:8500", self.grpc)


@pytest.fixture(scope="module")
def workshop(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    home = tmp_path_factory.mktemp("clients")
    for digit in range(10):
        (home / f"{digit}.png").write_bytes(picture(scan(digit)))
    instances = [scan(digit).tolist() for digit in (8, 9)]
    (home / "predict.json").write_text(f'{{"instances": {instances}}}', encoding="utf-8")
    with digits_server(digits_models(digits, home), "native", "kserve", grpc=True) as (http, kserve, grpc):
        yield Workshop(home, http, kserve, grpc)


def sections() -> dict[str, str]:
    """The page's chapters by their headings."""
    return dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_each_server_has_a_snippet_and_says_what_is_supported_and_what_not():
    chapters = sections()
    for name in (*SERVERS, "A Flask upload"):
        assert re.search(r"^```(python|console)", chapters[name], re.MULTILINE), name
        assert "**Supported:**" in chapters[name], name
        assert "**Not supported:**" in chapters[name], name
        assert re.search(rf"^\| {re.escape(name.lower())}.*\|.*\| `rowserve serve ", TEXT.lower(), re.MULTILINE), name


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_prints_what_the_page_says(workshop, block: Block):
    for module in IMPORTED.findall(block.text):
        if module.partition(".")[0] not in OWN:
            client(module)
    wanted = PRINTED.findall(block.text)
    assert wanted, "a snippet shows what comes of it"
    ran = subprocess.run(
        [sys.executable, "-c", workshop.addressed(block.text)],
        cwd=workshop.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=END_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert same("\n".join(wanted), ran.stdout.strip()), ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(PAGE, "console"), ids=str)
def test_curl_prints_what_the_page_says(workshop, block: Block):
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("needs bash and curl")
    for step in steps(block):
        command = workshop.addressed(step.command).replace("curl ", "curl -s ", 1)
        ran = subprocess.run(
            ["bash", "-c", command], cwd=workshop.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert same("\n".join(step.printed), ran.stdout), f"{block}: {step.command}\n{ran.stdout}"


@pytest.mark.parametrize("line", re.findall(r"`(rowserve serve [^`]+)`", TEXT))
def test_the_commands_of_the_table_are_commands(line: str):
    context = serve.make_context("serve", shlex.split(line)[2:])
    for address in context.params["listen"]:
        mark, _, name = address.partition(",profile=")
        assert re.fullmatch(r":\d+", mark)
        assert name in ("", *PROFILE_NAMES)


def test_every_route_of_other_protocols_is_named():
    told = TEXT.replace("NAME", "{model}").replace("VERSION", "{version}")
    for route in router(Config().http.profile).routes:
        if route.table.name in ("torchserve", "kserve", "merged") and route.gives:
            assert route.path.split("/")[1] in told, f"{route.method if route.method != ANY else ''} {route.path}"
