"""What a folder of candidates says of itself: whose they are, of which data, made how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recbole_ext.run_folder import plain, write_text
from recbole_ext.types import UserError

NAME = "manifest.json"
FORMAT = 1
KIND = "candidates"


@dataclass(frozen=True)
class Manifest:
    """What candidates are.

    Attributes:
        dataset: Name of the dataset.
        fingerprint: SHA-256 of its tokens and of its interactions, however they are split.
        vocabulary: SHA-256 of the item tokens and of the user tokens, in the order of their ids.
        n_users: Users of the dataset.
        n_items: Items of the dataset.
        splits: Split -> users that have candidates in it.
        k: Most candidates of a user.
        history: ``mask``: no candidate stands in the user's history; ``keep``: some may.
        retriever: What made them: ``model``, ``folder``, ``checkpoint`` (digest of ``best.pt``); or
            ``merge`` and ``of``; or ``trec``.
        config: All settings of the run, which say how the data are filtered and split.
        seed: Of the run.
        digest: Digest of ``candidates.parquet``.
        versions: Of Python and the libraries.
        format: Of the files.
        kind: Of the folder.
    """

    dataset: str
    fingerprint: str
    vocabulary: dict[str, str]
    n_users: int
    n_items: int
    splits: dict[str, int]
    k: int
    history: str
    retriever: dict[str, Any]
    config: dict[str, Any]
    seed: int
    digest: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    kind: str = KIND

    @property
    def name(self) -> str:
        """Return what made the candidates, in a word or two."""
        made = self.retriever
        if "merge" in made:
            return f"{made['merge']} of {', '.join(name_of(one) for one in made['of'])}"
        return name_of(made)

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, whole or not at all; with it the candidates are finished."""
        write_text(folder / NAME, json.dumps(plain(asdict(self)), indent=2) + "\n")


def name_of(made: Mapping[str, Any]) -> str:
    """Return the model of a retriever, or what else made the candidates."""
    return str(made.get("model") or made.get("trec") or made.get("merge"))


def read_manifest(folder: Path) -> Manifest:
    """Return what the manifest of a folder of candidates says.

    Raises:
        UserError: There is none, or it is of something else.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(
            f"{folder} holds no candidates (no {NAME}); make them with: recbole-ext candidates "
            "--run=<run folder>"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("kind") != KIND or found.get("format") != FORMAT:
            raise UserError(
                f"{path} is no manifest of candidates of format {FORMAT}; name a folder that "
                "recbole-ext candidates has written"
            )
        known = {one.name for one in fields(Manifest)}
        return Manifest(**{key: value for key, value in found.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); make the candidates anew with recbole-ext candidates"
        ) from error
