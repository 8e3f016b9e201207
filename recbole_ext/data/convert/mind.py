"""Lines of MIND's files: ``behaviors.tsv`` and ``news.tsv``, tab-separated, without quoting."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime, timezone
from typing import NamedTuple

from recbole_ext.data.convert.raw import Described, cells, token
from recbole_ext.data.convert.text import plain

CONFIDENCE = 0.5
"""Of an entity from which on it is taken: how sure MIND's linker was of it."""
NEWS_COLUMNS = (
    *("category:token", "subcategory:token", "title:token_seq", "abstract:token_seq"),
    "entities:token_seq",
)
BAD_ENTITIES = "lists of entities that cannot be read"
_TIME = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) ([AP])M", re.IGNORECASE | re.ASCII
)


class Impression(NamedTuple):
    """What a user was shown at one time.

    Attributes:
        impression_id: As in the file.
        user_id: Who.
        time: Seconds since 1970; MIND names no zone, and UTC is taken.
        history: News that were clicked before, the oldest first; MIND has no times of them.
        candidates: News and label (``1`` clicked, ``0`` not) of each that was shown.
    """

    impression_id: str
    user_id: str
    time: int
    history: tuple[str, ...]
    candidates: tuple[tuple[str, str], ...]


class ImpressionReader:
    """Reads the lines of one ``behaviors.tsv``, in which an impression is there once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, line: str) -> Impression:
        """Read number, user, time, history and what was shown.

        Raises:
            ValueError: It is malformed, or of an impression that came before: metrics would take
                both for one.
        """
        number, user, time, history, shown = cells(line, "\t", 5)
        candidates = tuple(_candidate(one) for one in shown.split())
        if not candidates:
            raise ValueError("no news was shown")
        found = Impression(
            token(number),
            token(user),
            seconds(time),
            tuple(token(one) for one in history.split()),
            candidates,
        )
        if found.impression_id in self._seen:
            raise ValueError(f"impression {found.impression_id} was there before")
        self._seen.add(found.impression_id)
        return found


def seconds(text: str) -> int:
    """Return a time of MIND's ("11/15/2019 12:03:09 AM") in seconds since 1970.

    Raises:
        ValueError: It is no such time.
    """
    found = _TIME.fullmatch(text.strip())
    if not found or not 1 <= int(found[4]) <= 12:
        raise ValueError(f"{text[:40]!r} is no time as 11/15/2019 8:55:22 AM")
    month, day, year, hour, minute, second = map(int, found.groups()[:6])
    hour = hour % 12 + 12 * (found[7] in "pP")  # 12:03 AM is three minutes past midnight
    return int(datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp())


def read_news(line: str, notes: Counter[str]) -> Described:
    """Read a line of ``news.tsv``: its cells are ``NEWS_COLUMNS``.

    Args:
        line: Number, category, subcategory, title, abstract, address, and the entities of both.
        notes: Counts the lists of entities that cannot be read.

    Raises:
        ValueError: It is malformed.
    """
    number, category, subcategory, title, abstract, _address, *lists = cells(line, "\t", 8)
    entities: dict[str, None] = {}
    for text in lists:
        try:
            entities |= dict.fromkeys(_entities(text))
        except (ValueError, KeyError, TypeError, RecursionError):
            notes[BAD_ENTITIES] += 1
    texts = map(plain, (category, subcategory, title, abstract))
    return Described(token(number), (*texts, " ".join(entities)))


def _entities(text: str) -> list[str]:
    return [
        token(one["WikidataId"])
        for one in json.loads(text or "[]")
        if one["Confidence"] >= CONFIDENCE
    ]


def _candidate(text: str) -> tuple[str, str]:
    item, _, label = text.rpartition("-")
    if label not in ("0", "1") or not item:
        raise ValueError(f"{text[:40]!r} is no news with its label, as N55689-1")
    return token(item), label
