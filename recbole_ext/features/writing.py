"""Texts that a language model writes, kept by the hash of what was asked: none is paid for twice.

A folder holds ``texts.parquet``, a row for each token of the last call (``token``, ``text``,
``problem``, ``prompt_hash``, ``model``, ``cutoff``, ``date`` and what columns were given), and
``written.parquet``, all texts that were ever written there. Each batch is a file of its own until
they are merged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from recbole_ext.atomic import remove_leftovers, replacing
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.kept_rows import KeptRows
from recbole_ext.features.llm import Writer, Written
from recbole_ext.locks import sole_use
from recbole_ext.stopping import saying_what_is_kept
from recbole_ext.types import UserError

TEXTS = "texts.parquet"
ALL = "written.parquet"
COLUMNS = ["prompt_hash", "text", "problem", "model", "date"]


@dataclass(frozen=True)
class Texts:
    """Texts by token, and up to when interactions went into them.

    Attributes:
        texts: Token -> text, ``None`` where there is none: what ``build`` takes as contents.
        cutoffs: Token -> cut-off, ``None`` where none is known or none is needed.
        notes: For the manifest.
    """

    texts: dict[str, str | None]
    cutoffs: dict[str, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def cutoff(self) -> float | None:
        """The latest cut-off, for the manifest."""
        return max(self.cutoffs.values()) if self.cutoffs else None


def write_texts(
    folder: str | Path,
    prompts: Mapping[str, Any],
    writer: Writer,
    *,
    cutoffs: Mapping[str, float] | None = None,
    columns: Mapping[str, Mapping[str, str]] | None = None,
    batch_size: int = 16,
    confirm: Callable[[Sequence[str]], bool] | None = None,
    show_progress: bool = True,
) -> Texts:
    """Have texts written, those only that are new: for prompt, model or settings.

    Killed at any moment it has lost the batch in work, and the next call goes on. What failed is
    tried again by the next call.

    Args:
        folder: Where to; may hold texts already.
        prompts: Token -> prompt, ``None`` where there is nothing to ask. It is a text, or what the
            writer takes and has all that counts in its ``str``: :class:`~.pictures.Shown`.
        writer: Writes them.
        cutoffs: Token -> time up to which interactions are in its prompt.
        columns: Name -> token -> text, kept beside the texts.
        batch_size: Texts that are written, and kept, at a time.
        confirm: Prompts that are new -> whether to send them; asked before the first.
        show_progress: Whether there is a progress bar.

    Raises:
        UserError: It was not confirmed, the writer fails at all, another process writes there, or
            the folder cannot be used.
    """
    folder = Path(folder)
    for token, prompt in prompts.items():
        if cutoffs is not None and prompt and token not in cutoffs:
            raise UserError(f"the text of '{token}' has no cut-off; give one for each")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}; choose another --features_dir"
        ) from error
    with sole_use(folder, what="the folder of texts"):
        remove_leftovers(folder)
        done = Done(folder, writer)
        hashes = {token: done.hash_of(str(prompt)) for token, prompt in prompts.items() if prompt}
        new = {h: prompts[token] for token, h in hashes.items() if h not in done.rows}
        if new and confirm is not None and not confirm(list(map(str, new.values()))):
            raise UserError(
                f"{folder}: not confirmed, so nothing was sent; answer y, or give --yes"
            )
        asked = {*hashes.values()}
        with saying_what_is_kept(lambda: len(asked & done.rows.keys()), len(asked)):
            _write_new(done, new, writer, batch_size, show_progress)
        table = _table(list(prompts), hashes, done, cutoffs, columns or {})
        with replacing(folder / TEXTS) as path:
            table.to_parquet(path, index=False)
        done.merge()
    _log(table, len(new))
    known = None if cutoffs is None else {t: float(cutoffs[t]) for t in prompts if t in cutoffs}
    return _texts(table, known, writer)


def _texts(table: pd.DataFrame, cutoffs: dict[str, float] | None, writer: Writer) -> Texts:
    texts = table["text"].astype(object).where(table["text"].notna(), None)
    source = writer.source
    note = f"texts written by {source.encoder} ({source.revision}), {json.dumps(source.settings)}"
    return Texts(dict(zip(table["token"], texts, strict=True)), cutoffs, (note,))


def _write_new(
    done: Done, new: Mapping[str, Any], writer: Writer, batch_size: int, show_progress: bool
) -> None:
    left = list(new.items())
    with tqdm(total=len(left), unit="text", disable=not show_progress) as bar:
        for begin in range(0, len(left), batch_size):
            batch = dict(left[begin : begin + batch_size])
            done.add(list(batch), writer.write(list(batch.values())))
            bar.update(len(batch))


def _table(
    tokens: list[str],
    hashes: Mapping[str, str],
    done: Done,
    cutoffs: Mapping[str, float] | None,
    columns: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:
    nothing = {"problem": "there is nothing to ask about it"}
    rows = []
    for token in tokens:
        row = done.row(hashes[token]) if token in hashes else nothing
        more = {name: by_token.get(token) for name, by_token in columns.items()}
        rows.append({**row, "token": token, "cutoff": (cutoffs or {}).get(token), **more})
    names = ["token", "text", "problem", "prompt_hash", "model", "cutoff", "date", *columns]
    return pd.DataFrame(rows, columns=names).astype({"cutoff": "float64"})


def _log(table: pd.DataFrame, n_new: int) -> None:
    failed = table[table["text"].isna()]
    amiss = table[table["text"].notna() & table["problem"].notna()]
    logger = logging.getLogger()
    n_there = len(table) - len(failed)
    logger.info("texts: %d of %d, %d were new", n_there, len(table), n_new)
    for words, rows in (("have no text", failed), ("have a text with a flaw", amiss)):
        if len(rows):
            first = rows.iloc[0]
            logger.warning(
                "texts: %d %s, the first is '%s': %s",
                *(len(rows), words, first["token"], first["problem"]),
            )


class Done:
    """Texts by the hash of their prompt and of what wrote them.

    Args:
        folder: Where they are kept.
        writer: Whose texts count.
    """

    def __init__(self, folder: Path, writer: Writer) -> None:
        self.model = writer.source.encoder
        self._key = writer.source.digest()
        self._kept = KeptRows(folder, ALL, COLUMNS, "its texts are written anew")
        self.rows = self._kept.rows  # texts, of every writer
        self._failed: dict[str, dict[str, str | None]] = {}  # of this call

    def hash_of(self, prompt: str) -> str:
        """Return the hash of a prompt and of what is to answer it."""
        return text_hash(f"{self._key} {prompt}")

    def row(self, prompt_hash: str) -> dict[str, str | None]:
        """Return what is known of a prompt that was sent."""
        return self.rows.get(prompt_hash) or self._failed[prompt_hash]

    def add(self, hashes: Sequence[str], written: Sequence[Written]) -> None:
        """Keep what was written on disk; failures are of this call only."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        rows: dict[str, dict[str, str | None]] = {
            h: dict(zip(COLUMNS, (h, one.text, one.problem, self.model, date), strict=True))
            for h, one in zip(hashes, written, strict=True)
        }
        texts = {h: row for h, row in rows.items() if row["text"] is not None}
        self._failed.update({h: row for h, row in rows.items() if h not in texts})
        self._kept.add(texts)

    def merge(self) -> None:
        """Put all texts into one file; only then are the parts deleted."""
        self._kept.merge()
