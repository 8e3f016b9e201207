"""Atomic files, written row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from recbole_ext.data.convert.interactions import Interactions
from recbole_ext.data.convert.raw import Described

CHUNK = 100_000
"""Interactions that become Python objects together."""
LINKS = "images.csv"


@dataclass
class Side:
    """What was written of items or users.

    Attributes:
        rows: One for each that has interactions, and for others where they are written.
        described: Those of which the raw files say something.
        repeated: Rows of the raw files about one that had been described; they were left out.
        links: Addresses of pictures.
    """

    rows: int = 0
    described: int = 0
    repeated: int = 0
    links: int = 0


def write_interactions(path: Path, data: Interactions) -> None:
    """Write the ``.inter`` file, in the order of the raw files."""
    with text_file(path) as stream:
        stream.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
        for begin in range(0, len(data), CHUNK):
            part = data.take(slice(begin, begin + CHUNK))
            columns = (part.user, part.item, part.rating, part.timestamp)
            stream.writelines(
                f"{data.users[user]}\t{data.items[item]}\t{rating:g}\t{time:.15g}\n"
                for user, item, rating, time in zip(*(c.tolist() for c in columns), strict=True)
            )


def write_side(
    path: Path,
    columns: tuple[str, ...],
    rows: Iterator[Described],
    tokens: list[str],
    links: Path | None = None,
    others: bool = False,
) -> Side:
    """Write the ``.item`` or ``.user`` file: those described, in order, then those that are not.

    RecBole drops the interactions of what has no row, so each token has one.

    Args:
        path: Of the file.
        columns: After the token, with their types.
        rows: Descriptions of some of the tokens, perhaps several of one: the first counts.
        tokens: All that have interactions.
        links: Where the addresses of pictures go.
        others: Whether those without interactions are written as well.
    """
    of, done, left = path.suffix[1:], Side(len(tokens)), dict.fromkeys(tokens)
    written: set[str] = set()
    with ExitStack() as held:
        stream = held.enter_context(text_file(path))
        linked = _csv(held.enter_context(text_file(links))) if links else None
        stream.write("\t".join([f"{of}_id:token", *columns]) + "\n")
        if linked:
            linked.writerow([f"{of}_id", "url"])
        for row in rows:
            if row.token in written or not (others or row.token in left):
                done.repeated += 1
                continue
            written.add(row.token)
            done.rows += row.token not in left
            left.pop(row.token, None)
            done.described += 1
            stream.write("\t".join([row.token, *row.cells]) + "\n")
            if linked:
                urls = dict.fromkeys(row.links)
                linked.writerows((row.token, url) for url in urls)
                done.links += len(urls)
        stream.writelines(f"{token}{chr(9) * len(columns)}\n" for token in left)
    return done


def _csv(stream: TextIO) -> Any:
    return csv.writer(stream, lineterminator="\n")


def text_file(path: Path) -> TextIO:
    """Open a file to write; what UTF-8 cannot hold (half a surrogate pair) becomes "?"."""
    return open(path, "w", encoding="utf-8", errors="replace", newline="\n")
