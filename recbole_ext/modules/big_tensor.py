"""Tensors that may be too big for main memory: what is beyond a limit lies in a mapped file.

A mapped tensor is an ordinary CPU tensor whose bytes the kernel reads from the file when they are
asked for, and takes out of main memory again when that is short. The file has no name: none was
ever given (``O_TMPFILE``), or it is taken away at once where the file system cannot do without. So
whatever ends the process, a kill included, leaves nothing behind. Its blocks are allotted before
it is mapped: a full disk is an error here and no SIGBUS later.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_ext.types import UserError

logger = getLogger(__name__)

MIB = 1 << 20


class Room:
    """Room for big tensors: a device's own memory up to a limit, beyond it mapped files.

    Args:
        limit_mib: Most MiB that the tensors which are alive hold together outside of files;
            ``None``: no limit.
        folder: Where the files are; ``None``: ``$TMPDIR``, or ``/var/tmp``, which is meant for
            large files (``/tmp`` is often main memory itself).
    """

    def __init__(self, limit_mib: float | None = None, folder: str | Path | None = None) -> None:
        self.limit_mib = limit_mib
        self.folder = Path(folder or os.environ.get("TMPDIR") or "/var/tmp")
        self.most_mapped_mib = 0.0
        self._held: list[weakref.ref[Tensor]] = []
        self._mapped: list[weakref.ref[Tensor]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tensors out of copies and pickles: those have their own."""
        return {**self.__dict__, "_held": [], "_mapped": []}

    def empty(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return a new tensor, on ``device`` or, where the limit would be passed, in a file (CPU).

        Raises:
            UserError: The folder has no room for the file, or takes none.
        """
        if self.limit_mib is None:
            return torch.empty(tuple(shape), dtype=dtype, device=device)
        n_bytes = math.prod(shape) * dtype.itemsize
        if _mib(self._held) + n_bytes / MIB <= self.limit_mib:
            tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
            self._held.append(weakref.ref(tensor))
            return tensor
        tensor = torch.frombuffer(self._map(n_bytes), dtype=dtype).view(*shape)
        self._mapped.append(weakref.ref(tensor))
        if not self.most_mapped_mib:
            logger.info(
                "memory: beyond memory_limit_mib (%g) it lies in files in %s",
                self.limit_mib,
                self.folder,
            )
        self.most_mapped_mib = max(self.most_mapped_mib, _mib(self._mapped))
        return tensor

    def _map(self, n_bytes: int) -> mmap.mmap:
        try:
            if shutil.disk_usage(self.folder).free < n_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with tempfile.TemporaryFile(dir=self.folder) as file:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
                return mmap.mmap(file.fileno(), n_bytes)
        except OSError as error:
            raise UserError(
                f"memory_dir: '{self.folder}' cannot hold a file of {n_bytes / MIB:,.0f} MiB for "
                f"the memory ({error.strerror}); name a folder with as much room, or raise "
                f"memory_limit_mib ({self.limit_mib:g})"
            ) from None


def _mib(tensors: list[weakref.ref[Tensor]]) -> float:
    """Return the MiB of the tensors that are still there, and forget the others."""
    tensors[:] = [kept for kept in tensors if kept() is not None]
    return sum(tensor.nbytes for kept in tensors if (tensor := kept()) is not None) / MIB
