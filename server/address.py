"""Where the server listens: HOST:PORT, and for HTTP the profile of its routes. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from rowserve.server.card import BadSettings

MARK = ",profile="
NATIVE = "native"
# Which protocol answers where several want the same path; `profiles` has their routes.
PROFILE_NAMES = (NATIVE, "tensorflow-serving", "kserve", "torchserve", "triton", "mlserver")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port (0: any free one), as the operating system takes them."""

    host: str
    port: int
    profile: str = ""

    @classmethod
    def parse(cls, text: str, profile: str = "") -> Address:
        """127.0.0.1:8080, [::1]:8080, :8080 or localhost:8080; `,profile=NAME` may follow where `profile` names the
        one that counts without. Raises BadSettings."""
        where, marked, said = text.partition(MARK) if profile else (text, "", "")
        name = said if marked else profile
        if name:
            check_profile(name)
        host, colon, port = where.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536):
            raise BadSettings(f"{text}: write an address as HOST:PORT, such as 127.0.0.1:8080")
        host = host.removeprefix("[").removesuffix("]")
        return cls({"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host), int(port), name)

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


def check_profile(name: str) -> None:
    """Raises BadSettings unless there is such a profile."""
    if name not in PROFILE_NAMES:
        raise BadSettings(f"there is no profile {name!r}; there is: {', '.join(PROFILE_NAMES)}")


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host
