"""Candidates as a run of TREC, a line each: user, Q0, item, rank, score, tag."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

from recbole_ext.atomic import replacing
from recbole_ext.pipeline.candidates import Candidates
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.types import UserError


def export_trec(path: Path, rows: RerankBatch, tag: str) -> None:
    """Write the candidates of a split.

    Raises:
        UserError: A token has a space in it, which the form has no place for.
    """
    if path.exists():
        raise UserError(f"{path} is there already; name another file for --export")
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for user, items, scores in zip(
            rows.users, rows.candidates, rows.scores.tolist(), strict=True
        ):
            for rank, (item, score) in enumerate(zip(items, scores, strict=False), 1):
                line = f"{user} Q0 {item} {rank} {score!r} {tag}"
                if len(line.split()) != 6:
                    raise UserError(
                        f"a TREC run has no place for spaces, and there is one in user '{user}', "
                        f"item '{item}' or tag '{tag}'; take candidates.parquet itself"
                    )
                stream.write(line + "\n")


def import_trec(path: Path, like: Candidates, split: str, catalogue: Container[str]) -> Candidates:
    """Read a run's candidates; users, targets and histories are those of other candidates.

    Args:
        path: The run.
        like: The other candidates.
        split: Which of their rows.
        catalogue: All items of the dataset.

    Raises:
        UserError: The file is no run, or names users or items that there are not.
    """
    rows = like.split(split)
    found: dict[str, list[tuple[float, str]]] = {user: [] for user in rows.users}
    for number, user, item, score in _lines(path):
        if user not in found:
            raise UserError(
                f"{path}, line {number}: there is no user '{user}' in the {split} split of the "
                "candidates that it is imported beside"
            )
        if item not in catalogue:
            raise UserError(
                f"{path}, line {number}: there is no item '{item}' in {like.manifest.dataset}; "
                "items are called as in its .inter file"
            )
        found[user].append((score, item))
    lists = [sorted(found[user], key=lambda pair: -pair[0]) for user in rows.users]
    for user, one in zip(rows.users, lists, strict=True):
        if len({item for _, item in one}) < len(one):
            raise UserError(f"{path}: user '{user}' has an item twice; keep one")
    imported = replace(
        rows,
        candidates=[[item for _, item in one] for one in lists],
        scores=padded([[score for score, _ in one] for one in lists]),
    )
    manifest = replace(like.manifest, retriever={"trec": path.name}, history=_policy(imported))
    return Candidates(manifest, {split: imported})


def _policy(rows: RerankBatch) -> str:
    """Return ``mask`` where no candidate stands in its user's history."""
    is_masked = all(
        set(items).isdisjoint(history)
        for items, history in zip(rows.candidates, rows.histories, strict=True)
    )
    return "mask" if is_masked else "keep"


def _lines(path: Path) -> Iterator[tuple[int, str, str, float]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                parts = line.split()
                if not parts:
                    continue
                score = _number(parts[4]) if len(parts) == 6 else None
                if score is None:
                    raise UserError(
                        f"{path}, line {number}: no line of a TREC run, which is 'user Q0 item rank"
                        " score tag' with a number for the score"
                    )
                yield number, parts[0], parts[2], score
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; name a TREC run") from None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
