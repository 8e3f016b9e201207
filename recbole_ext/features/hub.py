"""Models by name: a folder here, or an id on the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import socket
import textwrap
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from recbole_ext.types import UserError, suggest


def check_model_name(key: str, name: str) -> None:
    """Refuse a path where there is no folder; the hub knows none of that name.

    Args:
        key: The option or setting that names it.
        name: A folder, or an id of the hub: ``name`` or ``owner/name``.

    Raises:
        UserError: Naming the folder, and one that is near.
    """
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if is_path and not Path(name).is_dir():
        what = "a file" if Path(name).is_file() else "no folder"
        raise UserError(
            f"{key}: '{name}' is {what}{near_folder(name)}; name the folder of a saved model, or "
            "an id of the Hugging Face hub"
        )


def near_folder(name: str) -> str:
    """Return ``; did you mean 'X'?`` for a folder here whose name is near, or nothing."""
    parent = Path(name).parent
    if not parent.is_dir():
        return ""
    return suggest(str(Path(name)), [str(one) for one in parent.iterdir() if one.is_dir()])


def quiet_hub() -> None:
    """Let the hub's library keep its retries to itself; to be called before it is imported.

    Where the hub's name leads nowhere it is not asked, which would take minutes; what was
    downloaded before is found all the same.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # where it is imported already
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    if "HF_HUB_OFFLINE" in os.environ or getproxies():
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        os.environ["HF_HUB_OFFLINE"] = "1"


def reason(error: Exception) -> str:
    """Return what a library says, on one line and cut between words, for URLs are of use whole."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")
