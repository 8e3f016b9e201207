"""One process at a time in a folder; the second is told who holds it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no file locks of this kind
    fcntl = None  # type: ignore[assignment]

from recbole_ext.types import UserError

LOCK = ".lock"
"""File of a folder whose lock holds the folder; it says who has it."""


class InUse(UserError):
    """Another process holds the folder."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which need not be there, and wait until it is free.

    Raises:
        UserError: Its place cannot be written.
    """
    path = folder.with_name(f".{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place") from None
    with stream:
        if fcntl is not None:
            _flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def sole_use(folder: Path, rank: int = 0, what: str = "the run folder") -> Iterator[None]:
    """Hold a folder; of several processes of one run the first holds it for all.

    Args:
        folder: The folder.
        rank: Number of the process.
        what: What the folder is, for the message.

    Raises:
        InUse: Another process is at work in it.
        UserError: It cannot be written.
    """
    if rank != 0 or fcntl is None:
        yield
        return
    try:
        stream = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(
            f"cannot write {folder / LOCK}: {error.strerror}; choose another place"
        ) from None
    with stream:
        try:
            _flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            who = stream.read(200).strip()
            raise InUse(
                f"another process is at work in {what} {folder}{f' ({who})' if who else ''}; wait "
                "until it has ended"
            ) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: the next one is not told who
            os.ftruncate(stream.fileno(), 0)
            os.write(
                stream.fileno(),
                f"{os.getpid()} on {socket.gethostname()}, since {since}\n".encode(),
            )
        yield


def _flock(stream: IO[str], how: int) -> None:
    """Lock a file; where its file system knows no locks (NFS without lockd) say so and go on.

    Raises:
        BlockingIOError: Another process has it, and waiting was not asked for.
    """
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        raise
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be locked (%s): nothing keeps a second process out",
            stream.name,
            error.strerror,
        )
