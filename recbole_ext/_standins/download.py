"""RecBole's dataset download, made safe: the dataset's folder appears only when it is complete."""

from __future__ import annotations

import os
import tempfile
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from recbole_ext.types import UserError

ASK_ABOVE = 1 << 30
"""Bytes above which RecBole asks before it downloads."""
CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without an answer after which a download is given up."""


def download(dataset: Any) -> None:
    """Take the place of ``recbole.data.dataset.Dataset._download``.

    The first process of a machine downloads; the others, when there are any, wait for it. RecBole
    waits at the barrier in a single process too, where no process group exists.

    Raises:
        UserError: The dataset is not known, or could not be downloaded.
    """
    import torch.distributed as dist

    if dataset.config["local_rank"] == 0:
        fetch(dataset)
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def fetch(dataset: Any) -> None:
    """Download, unpack and rename the atomic files of ``dataset``, all or nothing.

    Raises:
        UserError: The dataset is not known, or could not be downloaded.
    """
    name, target = dataset.dataset_name, Path(dataset.dataset_path)
    try:
        url = dataset._get_download_url("url")
    except ValueError:
        raise UserError(
            f"dataset '{name}' was not found: there is no folder {target}, and RecBole knows no "
            f"download under this name; put {name}.inter into that folder, or set data_path to the "
            f"folder that contains '{name}'"
        ) from None
    made = [folder for folder in reversed(target.parents) if not folder.exists()]  # outermost first
    dataset.logger.info(f"Downloading dataset [{name}] from [{url}] to [{target}].")
    try:
        _fetch_into(url, name, target, show_progress=bool(dataset.config["show_progress"]))
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:  # URLError is an OSError
        _remove_empty(made)
        place = f"there is no folder {made[0]} (data_path), and " if made else ""
        raise UserError(
            f"dataset '{name}': {place}it could not be downloaded from {url} ({error}); try again, "
            f"or download and unpack it yourself so that {target / (name + '.inter')} exists"
        ) from error
    except BaseException:  # Ctrl-C
        _remove_empty(made)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):  # another run is at work in it
            folder.rmdir()


def _fetch_into(url: str, name: str, target: Path, show_progress: bool) -> None:
    from recbole.utils.url import rename_atomic_files

    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: on the same file system, so that the rename at the end is one step.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as temporary:
        archive = Path(temporary) / (url.rpartition("/")[2] or "archive.zip")
        folder = Path(temporary) / "files"
        folder.mkdir()
        _get(url, archive, show_progress)
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        rename_atomic_files(str(folder), archive.stem, name)
        try:
            os.rename(folder, target)
        except OSError:
            if not target.is_dir():  # else another run was faster, and its folder is complete
                raise


def _get(url: str, path: Path, show_progress: bool) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
        size = int(answer.headers["Content-Length"] or 0)
        if size > ASK_ABOVE:
            reply = input(f"{url} has {size / ASK_ABOVE:.2f} GiB. Download it? (y/N) ")
            if reply.strip().lower() != "y":
                raise OSError("declined")
        with tqdm(total=size or None, unit="B", unit_scale=True, disable=not show_progress) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if size and file.tell() != size:
            raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
