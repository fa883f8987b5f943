"""Which models there are: DIR/NAME/VERSION/ with a card at DIR/NAME/rowserve.toml, or single folders. Any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rowserve.graphs.model_files import ONNX_FILE, holds_model, is_onnx
from rowserve.handlers.items import plain_names
from rowserve.server.card import BadSettings, Card, read_card
from rowserve.server.models import NAME

LABELS_FILE = "labels.txt"


@dataclass(frozen=True)
class ModelSource:
    """One version of a model on disk. `path` is the folder with its graph; `fault` says why its card cannot be used."""

    name: str
    version: int
    path: Path
    card: Card
    fault: str = ""


def discover(models: Path | None, named: Mapping[str, str]) -> list[ModelSource]:
    """The models under `models` and those given one by one as name and path. Raises BadSettings."""
    found: dict[tuple[str, int], ModelSource] = {}
    for source in [*(under(models) if models else ()), *(s for n, p in named.items() for s in at(n, Path(p)))]:
        if (source.name, source.version) in found:
            raise BadSettings(f"model {source.name} version {source.version} is there twice; give one another name")
        found[source.name, source.version] = source
    if not found:
        where = f"in {models}" if models else "given"
        raise BadSettings(f"no model {where}; use --models DIR (with DIR/NAME/VERSION/) or --model NAME=PATH")
    return list(found.values())


def under(models: Path) -> Iterator[ModelSource]:
    """All models in a folder; what is no model folder is passed over, and one that cannot be one is a broken model."""
    if not models.is_dir():
        raise BadSettings(f"{models}: no such folder; models live as DIR/NAME/VERSION/")
    for folder in sorted(models.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        try:
            if versions(folder) or holds_model(folder):
                yield from at(folder.name, folder)
        except (BadSettings, OSError) as error:  # a name that cannot be asked for, or no right to look inside
            shown = folder.name.encode("utf-8", "backslashreplace").decode()
            yield ModelSource(shown, 1, folder, Card(), str(error))


def at(name: str, path: Path) -> Iterator[ModelSource]:
    """The versions at one path: a folder of version folders, or one version. Raises BadSettings."""
    if not NAME.fullmatch(name):
        raise BadSettings(f"{name!r} is no model name: 1 to 64 of A-Z a-z 0-9 . _ - and no dot at the start")
    if not path.is_dir():
        raise BadSettings(f"model {name}: there is no folder {path}")
    if holds_model(path):
        numbered = path.name.isdecimal() and int(path.name) > 0
        card, fault = card_or_fault(card_folder(path))
        yield source(name, int(path.name) if numbered else 1, path, card, fault)
        return
    found = versions(path)
    if not found:
        other = f"it holds neither saved_model.pb nor {ONNX_FILE} nor version folders"
        why = other if any(path.iterdir()) else "the folder is empty"
        raise BadSettings(f"model {name}: {path} is not a model: {why}")
    card, fault = card_or_fault(path)
    for version, folder in sorted(found.items()):
        yield source(name, version, folder, card, fault)


def card_folder(version: Path) -> Path:
    """Where the card of a version lies: beside its folder where that bears a number, unless there is one in it."""
    numbered = version.name.isdecimal() and int(version.name) > 0
    return version.parent if numbered and not (version / "rowserve.toml").exists() else version


def source(name: str, version: int, path: Path, card: Card, fault: str) -> ModelSource:
    """One version; nothing but OpenVINO runs an ONNX file, so its card need not say so."""
    if is_onnx(path):
        card = msgspec.structs.replace(card, engine="openvino")
    return ModelSource(name, version, path, card, fault)


def card_or_fault(folder: Path) -> tuple[Card, str]:
    """The card, or what is wrong with it: a model with a bad card is broken, and the others go on."""
    try:
        return read_card(folder), ""
    except BadSettings as error:
        return Card(), str(error)


def find(model: str, models: Path | None) -> ModelSource:
    """The model that a command names: NAME or NAME/VERSION under `models`, else a path. Raises BadSettings."""
    if models is not None:
        name, _, version = model.partition("/")
        folder = models / name
        if NAME.fullmatch(name) and folder.is_dir() and (not version or version.isdecimal()):
            return pick(list(at(name, folder)), version)
    path = Path(model)
    if path.is_dir():
        name = path.resolve().name
        if name.isdecimal():
            name = path.resolve().parent.name
        return pick(list(at(name if NAME.fullmatch(name) else "model", path)), "")
    if models is None:
        raise BadSettings(f"{model}: no such folder; for a name, give --models DIR")
    there = plain_names(sorted({source.name for source in under(models)}))
    raise BadSettings(f"{model}: neither a model in {models} nor a folder; there is: {there}")


def pick(sources: list[ModelSource], version: str) -> ModelSource:
    """The version asked for, or the highest. Raises BadSettings."""
    chosen = [source for source in sources if not version or source.version == int(version)]
    if not chosen:
        there = plain_names(source.version for source in sources)
        raise BadSettings(f"model {sources[0].name} has no version {version}; it has: {there}")
    highest = max(chosen, key=lambda source: source.version)
    if highest.fault:
        raise BadSettings(highest.fault)
    return highest


def versions(folder: Path) -> dict[int, Path]:
    """The version folders in a model's folder, also those that hold no model: loading them says why.

    Of 1 and 01, it is 1.
    """
    found: dict[int, Path] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: (len(entry.name), entry.name)):
        if entry.name.isdecimal() and int(entry.name) > 0 and entry.is_dir():
            found.setdefault(int(entry.name), entry)
    return found


def labels_file(source: ModelSource) -> Path | None:
    """Where the labels of a model lie, if it has any: where the card says, else labels.txt in the version's
    assets.extra, or beside the card. Raises BadSettings where the card's file is not there."""
    named = source.card.labels.file
    if named:
        for folder in (source.path.parent, source.path, source.path / "assets.extra"):
            if (folder / named).is_file():
                return folder / named
        raise BadSettings(f"labels.file: there is no {named!r} beside the card or in {source.path}")
    for folder in (source.path / "assets.extra", card_folder(source.path)):
        if (folder / LABELS_FILE).is_file():
            return folder / LABELS_FILE
    return None
