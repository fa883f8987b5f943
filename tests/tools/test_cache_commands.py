"""`rowserve cache`: what it prints of a cache that real runs have filled."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rowserve.tools.cli import main
from tests.tools.processes import arithmetic_model, rows, rowserve


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a cache that has 40 rows of it."""
    home = tmp_path_factory.mktemp("cache")
    model = arithmetic_model(home / "arithmetic")
    assert rowserve("infer", str(model), "--cache", str(home / "cache"), lines=rows(40)).returncode == 0
    return home


def cache(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", arguments[0], "--cache", str(home / "cache"), *arguments[1:]])


def plain(home: Path, *arguments: str) -> Any:
    return json.loads(cache(home, *arguments, "--json").output)


def test_stat_says_how_full_it_is_and_of_what(filled: Path) -> None:
    report = plain(filled, "stat")
    assert (report["rows"], sum(report["generations"].values())) == (40, 40)
    shown = cache(filled, "stat").output
    assert "rows     40" in shown
    assert next(iter(report["generations"])) in shown
    assert "serving_default" in shown
    assert re.search(r" arithmetic/1$", shown, re.MULTILINE)


def test_ls_lists_the_rows(filled: Path) -> None:
    listed = [json.loads(line) for line in cache(filled, "ls", "--json").output.splitlines()]
    assert len(listed) == 40
    assert {record["kind"] for record in listed} == {"row"}
    assert len(cache(filled, "ls", "--limit", "3").output.splitlines()) == 4
    assert cache(filled, "ls", "--generation", "00000000", "--json").output == ""


def test_verify_finds_a_damaged_page_and_the_next_start_sets_the_file_aside(tmp_path: Path) -> None:
    model = arithmetic_model(tmp_path / "arithmetic")
    infer = ["infer", str(model), "--cache", str(tmp_path / "cache")]
    rowserve(*infer, lines=rows(40))
    data = tmp_path / "cache" / "rows" / "data.mdb"
    with data.open("r+b") as file:  # all but the two first pages, behind a clean mark
        status = data.stat()
        file.seek(8192)
        file.write(bytes(status.st_size - 8192))
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = cache(tmp_path, "verify")
    assert (done.exit_code, len(done.output.splitlines())) == (1, 2)
    assert "data.mdb is damaged: " in done.output
    assert "pages" in json.loads(cache(tmp_path, "verify", "--json").output)
    again = rowserve(*infer, lines=rows(40))
    assert b"set aside" in again.stderr
    assert b" 40 computed" in again.stderr
    assert cache(tmp_path, "verify").exit_code == 0


def test_explain_says_of_hits_what_is_known(filled: Path) -> None:
    shown = cache(filled, "explain", str(filled / "arithmetic"), rows(1).decode().strip()).output
    assert "hits        none noted since eviction last passed the row; they are noted only while" in shown


def test_verify_finds_all_whole(filled: Path) -> None:
    done = cache(filled, "verify")
    assert done.exit_code == 0
    assert done.output.endswith("records checked, 0 damaged\n")


def test_explain_tells_the_parts_of_the_key_and_where_the_row_stands(filled: Path) -> None:
    model = str(filled / "arithmetic")
    known = plain(filled, "explain", model, rows(1).decode().strip())
    assert known["state"] == "kept"
    assert known["row_bytes"] == 16
    parts = [(field["label"], field["name"]) for field in known["fields"]]
    named = {("fingerprint", ""), ("signature", ""), ("input", "x"), ("output", "double"), ("output", "sum")}
    assert named <= set(parts)
    assert known["key"] in {json.loads(line)["key"] for line in cache(filled, "ls", "--json").output.splitlines()}
    other = plain(filled, "explain", model, "[5,5,5,5]")
    assert (other["state"], other["generation"]) == ("absent", known["generation"])
    assert other["key"] != known["key"]
    shown = cache(filled, "explain", model, rows(1).decode().strip()).output
    assert "ago" in shown
    assert known["key"] in shown


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["explain", "{home}/arithmetic", "[1]"], "expected a list of 4"),
        (["explain", "{home}/arithmetic", "/nowhere.jpg"], "input x"),
        (["explain", "{home}/nothing", "[1]"], "no such folder"),
        (["explain", "{home}/arithmetic", "[1,2,3,4]", "--signature", "other"], "no signature"),
        (["purge", "--yes", "--generation", "00000000"], "no generation"),
        (["resize", "1B"], "smallest cap"),
        (["resize", "big"], "not a size"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(filled: Path, arguments: list[str], word: str) -> None:
    done = cache(filled, *(argument.format(home=filled) for argument in arguments))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr


def test_a_cache_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    for command in (["stat"], ["ls"], ["verify"], ["purge", "--yes"], ["resize", "1GiB"]):
        done = cache(tmp_path, *command)
        assert done.exit_code == 2, command
        assert len(done.stderr.splitlines()) == 1
        assert str(tmp_path) in done.stderr
        assert not (tmp_path / "cache" / "rows").exists()


def test_resize_and_purge(tmp_path: Path) -> None:
    model = arithmetic_model(tmp_path / "arithmetic")
    infer = ["infer", str(model), "--cache", str(tmp_path / "cache")]
    rowserve(*infer, lines=rows(10))
    assert cache(tmp_path, "resize", "64MiB").exit_code == 0
    report = plain(tmp_path, "stat")
    assert (report["size"], report["rows"]) == (64 << 20, 10)
    (tag,) = report["generations"]
    assert cache(tmp_path, "purge", "--generation", tag, "--yes").output == "10 records dropped\n"
    assert b" 10 computed" in rowserve(*infer, lines=rows(10)).stderr
    refused = CliRunner().invoke(main, ["cache", "purge", "--cache", str(tmp_path / "cache")], input="n\n")
    assert refused.exit_code == 1
    assert b" 10 hits" in rowserve(*infer, lines=rows(10)).stderr
    assert cache(tmp_path, "purge", "--yes").exit_code == 0
    assert (tmp_path / "cache" / "secret").exists()
    assert b" 10 computed" in rowserve(*infer, lines=rows(10)).stderr
