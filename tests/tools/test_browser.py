"""What pages in a real Chromium can do to a server on the same machine, and what they cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.tools.chromium import Browser, browser, chromium
from tests.tools.processes import arithmetic_model, server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAMES = ("page.example", "foreign.example", "rebound.example")


class Blank(BaseHTTPRequestHandler):
    """An empty page at every path."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>blank</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Town:
    """A browser, a server of rows at `url`, and pages at `port` of every name."""

    def __init__(self, browser: Browser, url: str, port: int) -> None:
        self.browser, self.url, self.port = browser, url, port
        self.at = url.rpartition(":")[2]

    def page(self, name: str) -> None:
        self.browser.go(f"http://{name}:{self.port}/")

    def fetched(self, url: str, **options: Any) -> Any:
        """Status and a header of the answer, or "refused" where the page may not read it."""
        script = (
            f"fetch({url!r}, {options!r}).then(async a => "
            "[a.status, a.type, a.headers.get('cache-status'), await a.text()])"
            ".catch(() => 'refused')"
        )
        return self.browser.run(script)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    chromium()
    home = tmp_path_factory.mktemp("browser")
    model = arithmetic_model(home / "model")
    pages = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    settings = home / "rowserve.toml"
    settings.write_text(f'[http]\norigins = ["http://page.example:{pages.server_port}"]\n', encoding="utf-8")
    told = ("--config", str(settings), "--model", f"m={model}", "--cache", str(home / "cache"))
    try:
        with server(*told) as url, browser(home / "profile", *NAMES) as driven:
            yield Town(driven, url, pages.server_port)
    finally:
        pages.shutdown()
        pages.server_close()


ROW = "[1,2,3,0.5]\n"


def test_a_page_of_the_server_itself_may_ask(town: Town) -> None:
    town.browser.go(f"{town.url}/livez")
    assert '"live"' in town.browser.run("document.body.innerText")
    assert town.fetched("/rows/m", method="POST", body=ROW)[0] == 200


def test_a_name_that_is_pointed_here_may_not(town: Town) -> None:
    town.browser.go(f"http://rebound.example:{town.at}/livez")
    assert "[http] hosts" in town.browser.run("document.body.innerText")
    assert town.fetched("/rows/m", method="POST", body=ROW)[0] == 403


def test_a_foreign_page_may_only_go_there(town: Town) -> None:
    asked = "fetch('/metrics').then(a => a.text())"
    town.page("foreign.example")
    plain = {"method": "POST", "body": ROW, "headers": {"Content-Type": "text/plain"}}
    assert town.fetched(f"{town.url}/rows/m", **plain) == "refused"
    assert town.fetched(f"{town.url}/rows/m", mode="no-cors", **plain)[1] == "opaque"
    assert town.fetched(f"{town.url}/livez") == "refused"
    assert town.fetched(f"{town.url}/rows/m", method="PUT") == "refused"  # its preflight
    town.browser.run(f"new Promise(done => {{ const i = new Image(); i.onerror = done; i.src = '{town.url}/readyz' }})")
    town.browser.run(f"location.href = '{town.url}/livez'; 0")
    town.browser.wait()
    assert '"live"' in town.browser.run("document.body.innerText")
    figures = town.browser.run(asked)
    assert 'code="403",route="other"' in figures
    assert 'route="/readyz"' not in figures


def test_a_form_of_a_foreign_page_is_refused(town: Town) -> None:
    town.page("foreign.example")
    town.browser.run(
        f"document.body.innerHTML = '<form method=post enctype=text/plain "
        f"action={town.url}/rows/m><input name=a></form>';"
        "document.forms[0].submit(); 0"
    )
    town.browser.wait()
    assert "[http] origins" in town.browser.run("document.body.innerText")


def test_an_allowed_page_reads_its_answers(town: Town) -> None:
    town.page("page.example")
    wishes = {"Cache-Control": "no-store", "Content-Type": "application/x-ndjson"}  # which want a preflight
    status, kind, told, text = town.fetched(f"{town.url}/rows/m", method="POST", body=ROW, headers=wishes)
    assert (status, kind) == (200, "cors")
    assert told.startswith("rowserve; ")
    assert '"line"' in text
    assert town.fetched(f"{town.url}/nothing")[0] == 404
