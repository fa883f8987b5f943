"""A folder that is built appears complete or not at all; a recipe's digest follows what it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowserve.tools.export import BuildFailed, build_in_child, complete_folder, is_complete, recipe_digest


def test_a_folder_appears_with_everything_in_it(tmp_path: Path) -> None:
    target = tmp_path / "model" / "1"
    with complete_folder(target) as building:
        (building / "a").write_text("a")
        assert building.parent == target.parent
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["1"]
    assert (target / "a").read_text() == "a"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), complete_folder(tmp_path / "1") as building:
        (building / "a").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_keeps_what_the_first_has_finished(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "1") as second:
        (second / "a").write_text("second")
        with complete_folder(tmp_path / "1") as first:
            (first / "a").write_text("first")
    assert (tmp_path / "1" / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_model_without_its_card_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    assert not is_complete(tmp_path)
    (tmp_path / "rowserve.toml").touch()
    assert is_complete(tmp_path)


def test_a_digest_follows_source_and_packages() -> None:
    digests = {
        recipe_digest(b"a", ["numpy"]),
        recipe_digest(b"b", ["numpy"]),
        recipe_digest(b"a", ["pytest"]),
        recipe_digest(b"a", ["no-such-package"]),
    }
    assert len(digests) == 4
    assert recipe_digest(b"a", ["numpy"]) in digests


def test_a_child_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="No module named .*no_such_builder"):
        build_in_child("rowserve.tools.no_such_builder", tmp_path / "x")
