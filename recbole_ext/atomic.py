"""Writes a file whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from recbole_ext.locks import LOCK, sole_use
from recbole_ext.types import UserError

_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of writes into a folder that were killed, and nothing else."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write; at the end it is synced to disk and becomes ``path``.

    After an error, a kill or a power failure ``path`` is what it was before; once this has returned
    it is the new file, whatever happens.

    Args:
        path: The file; the temporary one is its sibling, ``.<name>.<pid>.tmp``.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    if not path.name:
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place "
            "(what was there before is untouched)"
        ) from error
    finally:
        with suppress(OSError):  # after Ctrl-C too
            temporary.unlink()


@contextmanager
def replacing_folder(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give an empty folder to write files in; at the end they are those of ``folder``.

    A new folder appears with all of them at once. In one that is there each file is replaced, those
    of ``names`` that were not written go, and what else it holds stays. Before that nothing of it
    is touched. What a killed process left is cleared by the next one.

    Args:
        folder: The folder, or a link to it; the temporary one is its sibling, ``.<name>.partial``.
        names: All files that may be written. The last is there only with all others: of files that
            are replaced it goes first and comes last.

    Raises:
        UserError: Another process writes it too, the disk is full or it cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with sole_use(partial, what="the temporary folder"):
            try:
                _clear(partial)
                yield partial
                _move(partial, folder, names)
            except BaseException:  # Ctrl-C too
                shutil.rmtree(partial, ignore_errors=True)
                for parent in new:
                    with suppress(OSError):  # somebody else has begun to use it
                        parent.rmdir()
                raise
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; free space or choose another place"
        ) from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def _move(partial: Path, folder: Path, names: Sequence[str]) -> None:
    """Make what was written ``folder``, or its files those of ``folder``."""
    written = {path.name for path in partial.iterdir()} - {LOCK}
    for name in sorted(written):
        with open(partial / name, "rb+") as stream:
            os.fsync(stream.fileno())
    if not folder.exists():
        (partial / LOCK).unlink(missing_ok=True)
        os.rename(partial, folder)
    else:
        (folder / names[-1]).unlink(missing_ok=True)
        for name in names:
            if name in written:
                os.replace(partial / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        _sync_folder(folder)
        shutil.rmtree(partial, ignore_errors=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync the entry that a rename has changed, where the platform can open a folder.

    Without it a power failure may bring the old file back after what is said to be saved: a record
    in ``metrics.jsonl``, say, that ``last.pt`` does not know.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some network file systems refuse; the file itself is whole either way
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
