from __future__ import annotations

import pytest

from rowserve.server.card import BadSettings
from rowserve.server.config import CacheConfig, Config, cache_folder, override, read_config
from rowserve.server.units import Bytes, Seconds


def test_defaults_are_those_of_the_documentation():
    config = read_config(None)
    assert config.listen == "127.0.0.1:8080"
    assert config.cache == CacheConfig(folder="", size="", enabled=True)
    assert (Bytes.parse(config.limits.body), config.limits.parts, config.limits.queue_rows) == (64 << 20, 1000, 4096)


def test_a_file_is_read_and_flags_overrule_it(tmp_path):
    file = tmp_path / "rowserve.toml"
    file.write_text('listen = "0.0.0.0:1"\nmodels = "m"\n[cache]\nsize = "1GiB"\n[model]\na = "b"\n')
    config = override(read_config(file), listen="127.0.0.1:2", models=None)
    assert (config.listen, config.models, config.cache.size, config.model) == ("127.0.0.1:2", "m", "1GiB", {"a": "b"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lisen = 'x'", "lisen"),
        ("[limits]\nparts = 'many'", r"limits\.parts"),
        ("[limits]\nparts = 0", "parts must be at least 1"),
        ("[cache]\nsize = 'big'", "not a size"),
        ("[cache]\nsize = '1MiB'", r"at least 4\.0 MiB"),
        ("[cache]\nsize = '0'", "--no-cache"),
        ("[limits]\nidle = 'soon'", "not a duration"),
        ("[limits]\ndecoding = 'all'", "not a size"),
        ("[http]\nhosts = ['http://a']", "hosts: 'http://a'"),
        ("[http]\nhosts = 'a'", r"http\.hosts"),
        ("[http]\norigins = ['a']", "origins: 'a'"),
        ("listen = ", "rowserve.toml"),
    ],
)
def test_a_wrong_or_unknown_field_is_named(tmp_path, text, says):
    file = tmp_path / "rowserve.toml"
    file.write_text(text)
    with pytest.raises(BadSettings, match=says):
        read_config(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadSettings, match="gone"):
        read_config(tmp_path / "gone.toml")


def test_the_cache_folder_is_the_platforms_unless_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(Config().cache).name == "rowserve"
    assert cache_folder(CacheConfig(folder=str(tmp_path / "x"))) == tmp_path / "x"


@pytest.mark.parametrize(("text", "number"), [("4GiB", 4 << 30), ("500 MB", 500_000_000), ("7", 7), ("1.5k", 1536)])
def test_sizes(text, number):
    assert Bytes.parse(text) == number


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4 XB", "4GiB x"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="not a size"):
        Bytes.parse(text)


@pytest.mark.parametrize(("text", "number"), [("30d", 2_592_000), ("20ms", 0.02), ("1.5 h", 5400)])
def test_durations(text, number):
    assert Seconds.parse(text) == number


def test_sizes_for_people():
    assert [Bytes.text(n) for n in (12, 1536, 4 << 30, 5 << 42)] == ["12 B", "1.5 KiB", "4.0 GiB", "20.0 TiB"]
