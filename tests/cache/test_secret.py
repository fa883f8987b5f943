from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rowserve.cache import secret
from rowserve.cache.errors import SecretRefused


def test_it_is_made_once_complete_private_and_kept(tmp_path):
    made = secret.read_or_make(tmp_path)
    assert len(made) == 32
    assert secret.read_or_make(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_two_folders_have_two_secrets(tmp_path):
    (tmp_path / "other").mkdir()
    assert secret.read_or_make(tmp_path) != secret.read_or_make(tmp_path / "other")


def test_who_comes_second_reads_the_first_ones(tmp_path, monkeypatch):
    (first,) = {secret.read_or_make(tmp_path)}
    secret.make(tmp_path / "secret")
    assert secret.read(tmp_path / "secret") == first
    assert len(list(tmp_path.iterdir())) == 1


def test_it_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    seen: list[bytes] = []
    link = os.link

    def watch(draft: Path, path: Path) -> None:
        assert not path.exists()
        seen.append(Path(draft).read_bytes())
        assert stat.S_IMODE(Path(draft).stat().st_mode) == 0o600
        link(draft, path)

    monkeypatch.setattr(os, "link", watch)
    assert secret.read_or_make(tmp_path) == seen[0]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        secret.read_or_make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def refused(path: Path) -> str:
    with pytest.raises(SecretRefused) as caught:
        secret.read_or_make(path.parent)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("length", [0, 31, 33, 4096])
def test_a_wrong_length_is_refused_by_name(path, length):
    path.write_bytes(bytes(length))
    assert f"holds {length} bytes where a secret has 32" in refused(path)
    assert path.stat().st_size == length


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o601])
def test_one_that_others_can_read_is_refused_with_the_cure(path, mode):
    path.chmod(mode)
    assert f"chmod 600 {path}" in refused(path)


def test_one_of_another_user_is_refused(path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "belongs to user" in refused(path)


def test_a_link_is_refused(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    assert "symbolic link" in refused(path)


def test_a_folder_and_a_pipe_are_refused(path):
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "is not a file" in refused(path)
    path.unlink()
    path.mkdir(0o700)
    assert "is not a file" in refused(path)


def test_one_that_cannot_be_read_says_why(path, monkeypatch):
    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(PermissionError):
        secret.read(path)
