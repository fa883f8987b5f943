"""HOST:PORT, with a profile or without."""

from __future__ import annotations

import pytest

from rowserve.server.address import PROFILE_NAMES, Address
from rowserve.server.card import BadSettings
from rowserve.server.config import Config, HttpConfig, listening
from rowserve.server.profiles import PROFILES


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("localhost:0", "127.0.0.1", 0, "127.0.0.1:0"),
        (":8080", "0.0.0.0", 8080, "0.0.0.0:8080"),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)


NONE = ["8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "host:http", "a:1,profile=native"]


@pytest.mark.parametrize("text", NONE)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="HOST:PORT"):
        Address.parse(text)


def test_a_listener_has_the_profile_that_it_names_or_that_of_the_settings() -> None:
    config = Config(listen=["127.0.0.1:1", "127.0.0.1:2,profile=torchserve"], http=HttpConfig("kserve"))
    assert [address.profile for address in listening(config)] == ["kserve", "torchserve"]
    with pytest.raises(BadSettings, match="there is no profile 'x'; there is: native"):
        Address.parse("127.0.0.1:1,profile=x", "native")
    with pytest.raises(ValueError, match="no profile"):
        HttpConfig("x")


def test_every_profile_has_its_routes() -> None:
    assert tuple(PROFILES) == PROFILE_NAMES
