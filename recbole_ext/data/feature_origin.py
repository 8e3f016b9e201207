"""Which version of a dataset's files a feature was made for.

The files' bytes count and not the interactions of a run (``dataset_fingerprint`` of its result):
these depend on how the run filters, and a feature is good for any filter, for it goes by tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_ext.features.manifest import Manifest

_CHUNK = 1 << 20


def origin_of(config: Any, suffixes: Sequence[str]) -> str | None:
    """Return ``<file>:<digest>`` of the first file of a dataset that is there, as ``x.item:0f3a``.

    Args:
        config: With ``data_path`` (the dataset's folder) and ``dataset``.
        suffixes: Of the files, the one that says most first: ``("item", "inter")``.
    """
    for suffix in suffixes:
        path = Path(config["data_path"]) / f"{config['dataset']}.{suffix}"
        if path.is_file():
            return f"{path.name}:{file_digest(path)}"
    return None


def is_of_these(config: Any, manifest: Manifest) -> bool | None:
    """Return whether the dataset's file is that of a feature, ``None`` where that is not known.

    It is not where the feature knows no file, or the file is not there.
    """
    name, _, then = (manifest.dataset_fingerprint or "").rpartition(":")
    path = Path(config["data_path"]) / name if name else None
    return file_digest(path) == then if path and path.is_file() else None


def changed_since(manifest: Manifest) -> str:
    """Return what is to be said where the dataset's file is not that of a feature."""
    name, _, then = str(manifest.dataset_fingerprint).rpartition(":")
    return (
        f"feature '{manifest.name}': {name} is another than when it was made ({then} then); where "
        "what it was made of has changed, build it anew, which encodes only that"
    )


def file_digest(path: Path) -> str:
    """Return the first 16 digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()[:16]
