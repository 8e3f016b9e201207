"""A file is written whole or not at all, and is on the disk when the writer goes on."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from recbole_ext.atomic import replacing


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and replaced, in order; the real functions do it."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def rename(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    return done


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders cannot be opened here")
def test_the_folder_is_synced_after_the_rename(tmp_path: Path, calls: list[str]) -> None:
    write(tmp_path / "last.pt")
    assert calls == ["file", "rename", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_where_folders_cannot_be_opened_the_file_is_written_all_the_same(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    write(tmp_path / "last.pt")
    assert calls == ["file", "rename"] and (tmp_path / "last.pt").read_text() == "new"


def test_a_file_system_that_refuses_to_sync_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
    write(tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_text() == "new"
    if before is not None:
        assert set(os.listdir("/proc/self/fd")) == before
