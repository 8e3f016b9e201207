"""A file is written whole or not at all, and is on the disk when the writer goes on."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from recbole_ext.atomic import replacing, replacing_folder
from recbole_ext.types import UserError


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


def fill(folder: Path, names: dict[str, str]) -> None:
    with replacing_folder(folder, ["a", "b", "c"]) as place:
        for name, text in names.items():
            (place / name).write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_with_all_its_files_on_the_disk(tmp_path: Path, calls: list[str]) -> None:
    with replacing_folder(tmp_path / "deep" / "x", ["a", "b"]) as place:
        (place / "a").write_text("1")
        (place / "b").write_text("2")
        assert [path.name for path in tmp_path.rglob("x")] == []
    assert texts(tmp_path / "deep" / "x") == {"a": "1", "b": "2"}
    assert calls[:2] == ["file", "file"] and len(list((tmp_path / "deep").iterdir())) == 1


def test_in_a_folder_that_is_there_only_the_named_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a", "c", "mine"):
        (tmp_path / "x" / name).write_text("old")
    fill(tmp_path / "x", {"a": "new", "b": "new"})
    assert texts(tmp_path / "x") == {"a": "new", "b": "new", "mine": "old"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_after_an_error_a_folder_is_what_it_was(tmp_path: Path, error: BaseException) -> None:
    fill(tmp_path / "x", {"a": "old"})
    kind = UserError if isinstance(error, OSError) else type(error)
    for folder in (tmp_path / "x", tmp_path / "y"):
        with pytest.raises(kind), replacing_folder(folder, ["a"]) as place:
            (place / "a").write_text("new")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert texts(tmp_path / "x") == {"a": "old"}


def test_after_an_error_there_is_no_folder_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for parents in ("there", "new/deep"):
        with pytest.raises(ValueError), replacing_folder(tmp_path / parents / "x", ["a"]):
            raise ValueError
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_one(tmp_path: Path, is_there: bool) -> None:
    """The folder may be on another disk, to which nothing can be renamed from here."""
    target = tmp_path / "disk" / "x"
    if is_there:
        target.mkdir(parents=True)
    (tmp_path / "x").symlink_to(target)
    fill(tmp_path / "x", {"a": "new"})
    assert (tmp_path / "x").is_symlink() and texts(target) == {"a": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["x"]


def test_the_last_name_is_there_only_with_all_others(tmp_path: Path, monkeypatch: Any) -> None:
    """What is killed while it replaces files has no manifest: neither the new nor the old one."""
    fill(tmp_path / "x", {"a": "old", "c": "old"})
    replace, moved = os.replace, []

    def killed(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        if len(moved) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "x", {"c": "new", "b": "new", "a": "new"})
    assert moved == ["a", "b"] and texts(tmp_path / "x") == {"a": "new"}
