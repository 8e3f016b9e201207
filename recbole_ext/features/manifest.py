"""What a stored feature is: which encoder made it, of what, and when."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recbole_ext.atomic import replacing
from recbole_ext.types import UserError

NAME = "manifest.json"
FORMAT = 1
MAY_LEAK = (
    "may leak: its texts have no cut-off, so they may tell of the interactions that a model is to "
    "predict"
)
"""Note of texts that were let in without a cut-off."""


@dataclass(frozen=True)
class Source:
    """What makes one vector out of one content; another source makes another feature.

    Attributes:
        encoder: Name of the encoder, a hub id or a folder.
        revision: Hash or version of its weights; a folder's content, not its place.
        settings: What else decides the values: a text template, an image transform, a pooling.
    """

    encoder: str
    revision: str
    settings: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a short hash: vectors of equal digests and equal contents are equal."""
        text = json.dumps([self.revision, self.settings], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        name: Of the feature, as settings name it.
        kind: ``text``, ``image`` or ``vector``.
        of: ``item`` or ``user``.
        dataset: Whose tokens its rows are.
        source: What made it.
        shape: [rows, D], or [rows, T, D] where a row has several vectors.
        dtype: ``float16`` or ``float32``.
        n_present: Rows that have a content.
        generation: Part of the names of the files that belong together.
        date: When it was built, ISO 8601 in UTC.
        package: Version of this package.
        dataset_fingerprint: Which file of the dataset it was made for, and its digest:
            ``ml-100k.item:0f3a...``; ``None`` where none was there.
        cutoff: Time up to which interactions went into it, ``None`` where none did.
        n_cut: Rows whose content was longer than what was read of it; ``None``: nobody knows.
        notes: Anything a reader should know.
        format: Of the files.
    """

    name: str
    kind: str
    of: str
    dataset: str
    source: Source
    shape: tuple[int, ...]
    dtype: str
    n_present: int
    generation: str
    date: str
    package: str
    dataset_fingerprint: str | None = None
    cutoff: float | None = None
    n_cut: int | None = None
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, whole or not at all; with it a generation comes to be."""
        with replacing(folder / NAME) as path:
            text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return what the manifest of a folder says.

    Raises:
        UserError: There is none, or it is none of this package.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(
            f"{folder} holds no feature (no {NAME}); build it with: recbole-ext features"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {one.name for one in fields(Manifest)}
        if found.get("format") != FORMAT:
            raise UserError(
                f"{path} is of format {found.get('format')!r}, and this version reads {FORMAT}; "
                "build the feature anew"
            )
        found = {key: value for key, value in found.items() if key in known}
        found["source"] = Source(**found["source"])
        found.update(shape=tuple(found["shape"]), notes=tuple(found["notes"]))
        return Manifest(**found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged or no manifest of a feature ({error}); build the feature anew"
        ) from error
