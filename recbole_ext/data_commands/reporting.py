"""What the conversions share: the folder that they write, and what they say of malformed lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_ext.types import UserError


def folder_of(out: str, name: str = "") -> Path:
    """Return the dataset's folder, whose name is the dataset's, as RecBole wants it.

    Raises:
        UserError: There can be no such folder.
    """
    if not out or name in (".", "..") or "/" in name or "\\" in name:
        raise UserError(
            "--out takes the folder of the dataset, and --name one name in it: "
            "--out=data/beauty, or --out=data --name=beauty"
        )
    folder = Path(out)
    folder = folder / name if name and folder.name != name else folder
    if not folder.name or folder.name == "..":
        folder = folder.resolve()
    if not folder.name:  # the root has none
        return folder_of("")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file; name a folder")
    return folder


def malformed(sources: list[dict[str, Any]]) -> list[str]:
    """Return a line for each raw file of which lines were left out, with the first of them."""
    said = []
    for source in sources:
        if source["malformed"]:
            some = "; ".join(f"line {o['line']}: {o['reason']}" for o in source["first_malformed"])
            said.append(
                f"  {source['file']}: {source['malformed']:,} of {source['lines']:,} lines are "
                f"malformed and left out ({some})"
            )
    return said
