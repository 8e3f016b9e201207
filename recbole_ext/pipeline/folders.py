"""Folders that a command fills once: never one that holds something else, never half of one."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from recbole_ext.atomic import remove_leftovers
from recbole_ext.types import UserError


def check_free(folder: Path, own: Container[str]) -> None:
    """Refuse a folder that holds anything but the files of a write that was broken off.

    Args:
        folder: It need not be there.
        own: Names of files that such a write leaves.

    Raises:
        UserError: Naming what is in the way.
    """
    if folder.is_dir():
        remove_leftovers(folder)
        there = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if there:
            raise UserError(
                f"{folder} is there already, with {there[0]}; name another --output_dir"
            )
    elif folder.exists():
        raise UserError(f"{folder} is a file; name another --output_dir")


def make(folder: Path) -> Path:
    """Create a folder.

    Raises:
        UserError: It cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}; name another --output_dir"
        ) from None
    return folder


def remove_if_empty(folder: Path) -> None:
    """Take back a folder into which nothing was written."""
    with suppress(OSError):
        folder.rmdir()
