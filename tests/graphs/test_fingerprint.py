from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rowserve.graphs.errors import CannotLoad
from rowserve.graphs.fingerprint import fingerprint

Files = dict[str, bytes]
MODEL: Files = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": bytes(1000),
    "assets/words.txt": b"cat\ndog\n",
}
NAMES = st.text("ab/", min_size=1, max_size=5).map(lambda text: f"assets/{text.strip('/') or 'c'}")


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def test_a_copy_under_another_name_is_the_same_model(tmp_path: Path):
    one = write(tmp_path / "cats" / "1", MODEL)
    shutil.copytree(one, tmp_path / "dogs" / "77")
    assert fingerprint(one) == fingerprint(tmp_path / "dogs" / "77")


@pytest.mark.parametrize("name", list(MODEL))
def test_one_changed_bit_of_anything_that_makes_answers_is_another_model(tmp_path: Path, name: str):
    changed = bytearray(MODEL[name])
    changed[len(changed) // 2] ^= 1
    one, other = write(tmp_path / "one", MODEL), write(tmp_path / "two", {**MODEL, name: bytes(changed)})
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    "name",
    ["assets.extra/labels.txt", "fingerprint.pb", "keras_metadata.pb", "debug/info", "README", "rowserve.toml", "x/y"],
)
def test_what_no_answer_hangs_on_does_not_count(tmp_path: Path, name: str):
    one, other = write(tmp_path / "one", MODEL), write(tmp_path / "two", {**MODEL, name: b"anything"})
    assert fingerprint(one) == fingerprint(other)


def test_a_real_weight_changed(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))
    assert fingerprint(folder) == fingerprint(model("linear"))
    data = next((folder / "variables").glob("variables.data*"))
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(bytes(content))
    assert fingerprint(folder) != fingerprint(model("linear"))


def test_links_count_as_what_they_point_to(tmp_path: Path):
    one = write(tmp_path / "one", MODEL)
    other = tmp_path / "two"
    other.mkdir()
    for name in ("saved_model.pb", "variables", "assets"):
        (other / name).symlink_to(one / name)
    assert fingerprint(one) == fingerprint(other)


@given(
    one=st.dictionaries(NAMES, st.binary(max_size=3), max_size=3),
    other=st.dictionaries(NAMES, st.binary(max_size=3), max_size=3),
)
@example({"assets/a": b"x"}, {"assets/b": b"x"})
@example({"assets/a": b"x", "assets/b": b"y"}, {"assets/a": b"y", "assets/b": b"x"})
@example({"assets/a": b"b"}, {"assets/ab": b""})
@example({"assets/a": b"", "assets/b": b""}, {"assets/a": b""})
def test_no_two_contents_share_one(tmp_path_factory: pytest.TempPathFactory, one: Files, other: Files):
    # A name that is another's folder cannot be written; such a pair says nothing.
    home = tmp_path_factory.mktemp("pair")
    try:
        folders = [
            write(home / str(index), {"saved_model.pb": b"", **files}) for index, files in enumerate((one, other))
        ]
    except OSError:
        return
    # a//b and a/b are one file, so compare what was written.
    contents = [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    ]
    assert (fingerprint(folders[0]) == fingerprint(folders[1])) == (contents[0] == contents[1])


def test_folders_that_are_no_models_are_refused_in_one_line(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other", {"notes.txt": b"x"})
    (tmp_path / "file").write_bytes(b"x")
    for name, why in {
        "missing": "no such",
        "empty": "is empty",
        "other": "not a model",
        "file": "not a folder",
    }.items():
        with pytest.raises(CannotLoad, match=why) as caught:
            fingerprint(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
