"""The seven sample photos that scientific packages carry, and what the demo's model sees in them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Photo:
    """A photo on this disk, and the label that must come first for it."""

    path: Path
    label: str


# Package as it is imported, package as it is installed, file inside it, label.
_PHOTOS = (
    ("skimage", "scikit-image", "data/coffee.png", "espresso"),
    ("skimage", "scikit-image", "data/chelsea.png", "Egyptian cat"),
    ("skimage", "scikit-image", "data/motorcycle_left.png", "moped"),
    ("skimage", "scikit-image", "data/rocket.jpg", "missile"),
    ("sklearn", "scikit-learn", "datasets/images/flower.jpg", "daisy"),
    ("sklearn", "scikit-learn", "datasets/images/china.jpg", "palace"),
    ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "military uniform"),
)


class MissingPhotos(LookupError):
    """A package that carries photos is not installed; the message says which, and how to get it."""


def sample_photos() -> list[Photo]:
    """Find all seven photos, without importing the packages that carry them."""
    found: list[Photo] = []
    missing: dict[str, None] = {}
    for package, distribution, file, label in _PHOTOS:
        spec = find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        if folder and (folder / file).is_file():
            found.append(Photo(folder / file, label))
        else:
            missing[distribution] = None
    if missing:
        raise MissingPhotos(f"the sample photos are not here: pip install {' '.join(missing)}")
    return found
