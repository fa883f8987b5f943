from __future__ import annotations

from pathlib import Path

import pytest

from rowserve.server.discovery import discover
from rowserve.server.passed_over import passed_over, passed_over_in


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("m.keras", "m.keras ...: it is in Keras' own format; keras.saving.load_model(FILE).export('{0}/m/1')"),
        ("m/x.h5", "m/x.h5 ...: it is in Keras' own format; keras.saving.load_model(FILE).export('{0}/m/1')"),
        ("m/2/x.tflite", "m/2/x.tflite ...: it is TensorFlow Lite's; put the SavedModel that"),
        ("m/frozen.pb", "m/frozen.pb ...: it is a graph without signatures; tf.saved_model.save writes"),
        ("m/1/x.pt", "m/1/x.pt ...: it is PyTorch's; torch.onnx.export writes it as {0}/m/1/model.onnx"),
        ("iris.onnx", "iris.onnx ...: ONNX files are found by name; move it to {0}/iris/1/model.onnx"),
        ("iris/3/iris.onnx", "iris/3/iris.onnx ...: ONNX files are found by name; move it to {0}/iris/3/model.onnx"),
        ("m/1/model.savedmodel/saved_model.pb", "m/1/model.savedmodel ...: it is Triton's layout; move what"),
        ("m/v1/saved_model.pb", "m/v1 ...: versions are positive whole numbers; rename it to {0}/m/1"),
        ("m/0/saved_model.pb", "m/0 ...: versions are positive whole numbers; rename it to {0}/m/1"),
        ("m/export/saved_model.pb", "m/export ...: versions are positive whole numbers; rename it to {0}/m/1"),
        ("m/notes.txt", "m ...: it holds no model; a model lies in {0}/m/1"),
    ],
)  # fmt: skip
def test_what_looks_like_a_model_and_is_none_is_told_in_one_line(tmp_path: Path, file: str, says: str) -> None:
    put(tmp_path / file)
    (line,) = passed_over(tmp_path)
    says = says.format(tmp_path).replace("...", "is passed over")
    assert line.startswith(f"{tmp_path}/{says}")


def test_of_two_folders_of_one_version_the_plain_number_counts(tmp_path: Path) -> None:
    put(tmp_path / "m" / "01" / "saved_model.pb", tmp_path / "m" / "1" / "saved_model.pb")
    (source,) = discover(tmp_path, {})
    assert source.path == tmp_path / "m" / "1"
    (line,) = passed_over(tmp_path)
    assert line == f"{tmp_path}/m/01 is passed over: version 1 is in {tmp_path}/m/1 already"


def test_what_lies_beside_a_model_and_belongs_to_it_is_not_told(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    put(version / "saved_model.pb", version / "keras_metadata.pb", tmp_path / "m" / "labels.txt")
    put(tmp_path / "bare" / "saved_model.pb", tmp_path / "bare" / "variables" / "v1.h5", tmp_path / "README.md")
    put(tmp_path / ".git" / "x.onnx")
    assert list(passed_over(tmp_path)) == []


def test_many_files_of_a_kind_are_one_line(tmp_path: Path) -> None:
    put(*(tmp_path / "m" / f"{number}.pt" for number in range(9)))
    (line,) = passed_over(tmp_path)
    assert line.startswith(f"{tmp_path}/m/0.pt (and 8 more .pt) is passed over: ")


def test_one_model_given_as_a_folder_of_models_is_told(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "saved_model.pb")
    (line,) = passed_over(tmp_path / "m")
    assert line.endswith(f"serve it with --model m={tmp_path / 'm'}")
    (line,) = passed_over(tmp_path / "m" / "1")
    assert line.endswith(f"serve it with --model NAME={tmp_path / 'm' / '1'}")


def test_one_model_by_its_path_is_looked_at_alike(tmp_path: Path) -> None:
    put(tmp_path / "m" / "x.onnx")
    (of_folder,) = passed_over_in(tmp_path / "m")
    assert of_folder.endswith(f"move it to {tmp_path}/m/1/model.onnx")
    (of_file,) = passed_over_in(tmp_path / "m" / "x.onnx")
    assert of_file.endswith(f"move it to {tmp_path}/m/x/1/model.onnx")
    assert list(passed_over_in(tmp_path / "nowhere")) == []
