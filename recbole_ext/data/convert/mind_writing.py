"""MIND's impressions as atomic files, written as they are read."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from recbole_ext.data.convert.mind import Impression
from recbole_ext.data.convert.mind_files import PARTS, Source, Split
from recbole_ext.data.convert.writing import text_file

INTER_HEAD = (
    "impression_id:token\thist_id:token\tuser_id:token\titem_id:token\tlabel:float\t"
    "timestamp:float\n"
)
USER_HEAD = "hist_id:token\tuser_id:token\thistory:token_seq\n"


@dataclass
class Part:
    """What a part of the split has.

    Attributes:
        impressions: How many.
        clicks: News that were shown and clicked.
        non_clicks: Shown and not clicked.
        empty_histories: Impressions of a user of whom no click is known.
        one_class: Impressions of which all news, or none, were clicked: no metric counts them.
        first: Time of the first impression, seconds since 1970.
        last: Of the last.
    """

    impressions: int = 0
    clicks: int = 0
    non_clicks: int = 0
    empty_histories: int = 0
    one_class: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, row: Impression) -> None:
        """Count an impression."""
        clicks = sum(label == "1" for _, label in row.candidates)
        self.impressions += 1
        self.clicks += clicks
        self.non_clicks += len(row.candidates) - clicks
        self.empty_histories += not row.history
        self.one_class += clicks in (0, len(row.candidates))
        self.first = row.time if self.first is None else min(self.first, row.time)
        self.last = row.time if self.last is None else max(self.last, row.time)


@dataclass
class Written:
    """What was written of the impressions.

    Attributes:
        parts: ``train``, ``valid`` and ``test``.
        rows_of: News -> how many rows show it; 0 of one that is only in histories.
        users: Who was shown something.
        cut_histories: Histories of which only the newest clicks were kept.
    """

    parts: dict[str, Part] = field(default_factory=lambda: {part: Part() for part in PARTS})
    rows_of: dict[str, int] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)
    cut_histories: int = 0
    _histories: dict[str, int] = field(default_factory=dict)

    @property
    def n_histories(self) -> int:
        """Rows of the ``.user`` file."""
        return len(self._histories)

    def hist_id(self, user: str, source: str, history: tuple[str, ...]) -> tuple[str, bool]:
        """Return the id of a user's history, as ``U1@train``, and whether it is a new one.

        A user's next history in the same folder, should there be one, is ``U1@train.2``.
        """
        before, digest = len(self._histories), hash(history)
        name, n = f"{user}@{source}", 1
        while self._histories.setdefault(name, digest) != digest:
            n += 1
            name = f"{user}@{source}.{n}"
        return name, len(self._histories) > before


class ImpressionWriter:
    """Writes ``<name>.<part>.inter``, a row for each news that was shown, and ``<name>.user``.

    A history is written once, not with each of its rows: RecBole joins it per batch.

    Args:
        place: Folder of the files.
        name: Of the dataset.
        max_history: Newest clicks of a history that are kept.
    """

    def __init__(self, place: Path, name: str, max_history: int) -> None:
        self._place, self._name, self._max_history = place, name, max_history
        self.done = Written()

    def __enter__(self) -> ImpressionWriter:
        """Open the files."""
        with ExitStack() as held:
            self._user = held.enter_context(text_file(self._place / f"{self._name}.user"))
            self._inter: dict[str, TextIO] = {
                part: held.enter_context(text_file(self._place / f"{self._name}.{part}.inter"))
                for part in PARTS
            }
            self._held = held.pop_all()
        self._user.write(USER_HEAD)
        for stream in self._inter.values():
            stream.write(INTER_HEAD)
        return self

    def __exit__(self, *error: object) -> None:
        """Close them."""
        self._held.close()

    def write(self, source: Source, split: Split, rows: Iterable[Impression]) -> None:
        """Write the impressions of a folder."""
        for row in rows:
            part = split.part(source, row.time)
            self.done.parts[part].add(row)
            hist_id = self._history(row, source.name)
            head = f"{row.impression_id}@{source.name}\t{hist_id}\t{row.user_id}"
            self._inter[part].writelines(
                f"{head}\t{item}\t{label}\t{row.time}\n" for item, label in row.candidates
            )
            for item, _ in row.candidates:
                self.done.rows_of[item] = self.done.rows_of.get(item, 0) + 1

    def _history(self, row: Impression, source: str) -> str:
        self.done.users.add(row.user_id)
        hist_id, is_new = self.done.hist_id(row.user_id, source, row.history)
        if is_new:
            kept = row.history[-self._max_history :]
            self.done.cut_histories += len(kept) < len(row.history)
            self._user.write(f"{hist_id}\t{row.user_id}\t{' '.join(kept)}\n")
            for item in row.history:  # of a cut one too: news that somebody has read
                self.done.rows_of.setdefault(item, 0)
        return hist_id
