from __future__ import annotations

import re
from pathlib import Path

import pytest

from rowserve.server.card import BadSettings
from rowserve.server.discovery import discover, find, labels_file


def saved_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    saved_model(tmp_path / "cats" / "1")
    saved_model(tmp_path / "cats" / "12")
    (tmp_path / "cats" / "rowserve.toml").write_text("[batch]\nmax_rows = 7\n")
    saved_model(tmp_path / "dogs" / "2")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    return tmp_path


def test_models_are_found_by_name_and_version_with_their_cards(models):
    found = {(source.name, source.version): source for source in discover(models, {})}
    assert sorted(found) == [("cats", 1), ("cats", 12), ("dogs", 2)]
    assert found["cats", 12].card.batch.max_rows == 7
    assert found["dogs", 2].card.batch.max_rows == 32


def test_single_folders_may_be_a_version_or_a_bare_model(models, tmp_path):
    bare = saved_model(tmp_path / "elsewhere" / "export")
    found = discover(None, {"a": str(bare), "b": str(models / "cats" / "12"), "c": str(models / "dogs")})
    assert [(source.name, source.version) for source in found] == [("a", 1), ("b", 12), ("c", 2)]
    assert found[1].card.batch.max_rows == 7


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"a": "nowhere"}, "there is no folder nowhere"),
        ({"../a": "."}, "is no model name"),
        ({".a": "."}, "is no model name"),
        ({"a" * 65: "."}, "is no model name"),
        ({}, "--models DIR"),
    ],
)
def test_what_cannot_be_found_is_named(named, says):
    with pytest.raises(BadSettings, match=says):
        discover(None, named)


def test_an_empty_folder_and_one_that_is_no_model_say_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"")
    with pytest.raises(BadSettings, match="the folder is empty"):
        discover(None, {"a": str(tmp_path / "empty")})
    with pytest.raises(BadSettings, match=r"neither saved_model\.pb nor model\.onnx nor version folders"):
        discover(None, {"a": str(tmp_path / "other")})


def test_the_same_version_twice_is_refused(models):
    with pytest.raises(BadSettings, match="twice"):
        discover(models, {"cats": str(models / "cats" / "1")})


def test_a_command_names_a_model_by_name_version_or_path(models):
    assert find("cats", models).version == 12
    assert find("cats/1", models).version == 1
    assert find(str(models / "dogs"), None).name == "dogs"
    assert find(str(models / "dogs" / "2"), models).name == "dogs"
    for missing, says in (
        ("cats/9", "no version 9; it has: 1, 12"),
        ("birds", "neither a.*; there is: cats, dogs$"),
        ("../cats", "neither"),
    ):
        with pytest.raises(BadSettings, match=says):
            find(missing, models)


def test_a_card_with_a_wrong_or_unknown_field_names_it(models):
    card = models / "cats" / "rowserve.toml"
    for text, says in (
        ("[batch]\nmax_row = 3\n", "max_row"),
        ("[batch]\nmax_rows = 'x'\n", r"batch\.max_rows"),
        ("[batch]\nmax_rows = 0\n", "max_rows must be"),
        ("[cache]\nttl = 'soon'\n", "not a duration"),
        ("[picture]\nfit = 'bend'\n", "picture.fit"),
        ("engine = 'onnx'\n", "engine"),
        ("engine = 'openvino'\nprecision = 'f16'\n", "precision"),
        ("precision = 'bf16'\n", 'precision = "bf16" is for engine = "openvino" only'),
        ("[", "rowserve.toml"),
    ):
        card.write_text(text)
        with pytest.raises(BadSettings, match=says):
            find("cats", models)
        faults = {source.name: source.fault for source in discover(models, {})}
        assert re.search(says, faults["cats"])
        assert not faults["dogs"]


def test_a_folder_that_cannot_be_a_model_does_not_keep_the_others_from_serving(models, monkeypatch):
    saved_model(models / "my model" / "1")
    saved_model(models / "caf\udce9" / "1")  # Latin-1 bytes, as the file system shows them
    (models / "lost+found").mkdir()
    listed = Path.iterdir

    def refuses(folder: Path):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", refuses)
    faults = {source.name: source.fault for source in discover(models, {}) if source.fault}
    assert sorted(faults) == ["caf\\udce9", "lost+found", "my model"]
    assert "Permission denied" in faults["lost+found"]
    assert "is no model name" in faults["my model"]
    assert {source.name for source in discover(models, {})} == {"cats", "dogs", *faults}


def test_labels_come_from_the_card_or_from_the_version(models):
    (source,) = (source for source in discover(models, {}) if source.name == "dogs")
    assert labels_file(source) is None
    beside = models / "dogs" / "labels.txt"
    beside.write_text("rex\n")
    assert labels_file(source) == beside
    shipped = source.path / "assets.extra" / "labels.txt"
    shipped.parent.mkdir(exist_ok=True)
    shipped.write_text("rex\n")
    assert labels_file(source) == shipped
    (models / "dogs" / "rowserve.toml").write_text("[labels]\nfile = 'names.txt'\n")
    (source,) = (source for source in discover(models, {}) if source.name == "dogs")
    with pytest.raises(BadSettings, match=r"names\.txt"):
        labels_file(source)
    (models / "dogs" / "names.txt").write_text("rex\n")
    assert labels_file(source) == models / "dogs" / "names.txt"


def test_an_onnx_file_is_a_version_and_needs_no_engine_in_its_card(models):
    for version, file in (("1", "saved_model.pb"), ("2", "model.onnx"), ("3", "model.onnx")):
        (models / "mixed" / version).mkdir(parents=True)
        (models / "mixed" / version / file).write_bytes(b"")
    # Where both lie, the SavedModel counts, and the card says what runs it.
    (models / "mixed" / "3" / "saved_model.pb").write_bytes(b"")
    found = {source.version: source.card.engine for source in discover(models, {}) if source.name == "mixed"}
    assert found == {1: "tensorflow", 2: "openvino", 3: "tensorflow"}
    (bare,) = discover(None, {"bare": str(models / "mixed" / "2")})
    assert (bare.version, bare.card.engine) == (2, "openvino")
