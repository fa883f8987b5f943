"""The names of a classifier's outputs, out of a file beside the model. Reactor thread, once for each version.

Whatever is wrong with them, the model serves: without labels, and the log says why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rowserve.graphs.signature import STRING, TensorSpec
from rowserve.handlers.items import Labels, plain_names
from rowserve.server.card import BadSettings
from rowserve.server.discovery import ModelSource, labels_file

if TYPE_CHECKING:
    from rowserve.graphs.description import ModelDescription

log = logging.getLogger(__name__)


def labels_of(source: ModelSource, about: ModelDescription) -> Labels | None:
    """The labels, if the model has any that fit an output; else None, and one line in the log where it has some."""
    try:
        file = labels_file(source)
        if file is None:
            return None
        names = file.read_text(encoding="utf-8").splitlines()
        outputs = {spec.name: spec for signature in about.signatures.values() for spec in signature.outputs}
        return Labels(output_of(len(names), source.card.labels.output, outputs), names)
    except UnicodeDecodeError as error:
        fault = f"labels.file: {file} is not UTF-8 text: {error.reason}"
    except (BadSettings, OSError) as error:
        fault = str(error)
    log.warning("model %s version %d serves without labels: %s", source.name, source.version, fault)
    return None


def output_of(count: int, wanted: str, outputs: Mapping[str, TensorSpec]) -> str:
    """The output that so many labels belong to: the one the card wants, or the only one they fit. Raises
    BadSettings, which names the field of the card and the outputs that it could name."""
    fitting = [name for name, spec in outputs.items() if spec.shape == (count,) and spec.dtype != STRING]
    could = plain_names(fitting)
    if wanted:
        if wanted in fitting:
            return wanted
        if wanted not in outputs:
            raise BadSettings(f"labels.output names {wanted!r}, which is no output; {count} labels fit: {could}")
        shape = outputs[wanted].shape
        raise BadSettings(f"labels.output names {wanted!r}, whose row shape is {shape}; {count} labels fit: {could}")
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise BadSettings(f"labels.output must say which output the {count} labels belong to; they fit: {could}")
    shapes = ", ".join(f"{spec.name} {spec.shape}" for spec in outputs.values())
    raise BadSettings(f"labels.output: {count} labels fit no output; the row shapes are: {shapes}")
