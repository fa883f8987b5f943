from __future__ import annotations

from pathlib import Path

import pytest

from rowserve.server.card import BadSettings, read_card
from rowserve.server.config import read_config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[batch]\nmax_row = 3", "[batch] has no field 'max_row'; did you mean batch.max_rows? docs/models.md"),
        ("[picture]\ncolor = 'rgb'", "[picture] has no field 'color'; did you mean picture.colour? docs/models.md"),
        ("[Picture]\nfit = 'crop'", "there is no field 'Picture'; did you mean picture? docs/models.md"),
        ("ttl = '30d'", "there is no field 'ttl'; did you mean cache.ttl? docs/models.md"),
        ("zzzz = 1", "there is no field 'zzzz'; docs/models.md lists the fields"),
        ("[batch]\nmax_rows = 'x'", "Expected `int`, got `str` - at `$.batch.max_rows`"),
    ],
)
def test_an_unknown_field_of_a_card_names_the_one_that_was_meant(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rowserve.toml").write_text(text)
    with pytest.raises(BadSettings) as refused:
        read_card(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'rowserve.toml'}: {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("listens = ':80'", "there is no field 'listens'; did you mean listen? docs/operations.md"),
        ("[limits]\nqueue_row = 3", "[limits] has no field 'queue_row'; did you mean limits.queue_rows?"),
        ("[cache]\nbody = '1MiB'", "[cache] has no field 'body'; did you mean limits.body?"),
    ],
)
def test_so_does_one_of_the_servers_settings(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "rowserve.toml"
    file.write_text(text)
    with pytest.raises(BadSettings) as refused:
        read_config(file)
    assert str(refused.value).startswith(f"{file}: {says}")
