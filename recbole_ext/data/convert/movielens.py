"""What the versions of MovieLens share: how their files are found, and how a rating reads."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.raw import Described, Interaction, RawFormat, cells, number, token
from recbole_ext.data.convert.text import cell, words

USER_COLUMNS = ("age:token", "gender:token", "occupation:token", "zip_code:token")
NO_GENRES = "(no genres listed)"
_YEAR = re.compile(r"(.*?) ?\((\d{4})(?:[-\u2013](?:\d{4})?)?\)")
"""A title with its year, or years, as in "Babylon 5 (1994-1998)"."""


class MovieLens(RawFormat):
    """A version with ratings, movies and, but for the latest, users.

    Attributes:
        files: Names of the three.
        separator: Between the four cells of a rating.
        heads: First lines of the three, where they name columns.
        encoding: Of movies and users.
    """

    item_columns: ClassVar[tuple[str, ...]] = (
        *("movie_title:token_seq", "release_year:token", "genre:token_seq"),
    )
    files: ClassVar[tuple[str, str, str]]
    separator: ClassVar[str]
    heads: ClassVar[tuple[str, str, str]] = ("", "", "")
    encoding: ClassVar[str] = "latin-1"

    @classmethod
    def find(cls, source: Path) -> list[RawFormat]:
        """Return the set of files in a folder; movies and users may be missing."""
        folder = source if source.is_dir() else source.parent
        ratings, *others = (folder / name for name in cls.files)
        if not ratings.is_file() or source not in (folder, ratings):
            return []
        return [cls([ratings], *(one if one.is_file() else None for one in others))]

    def read_interactions(self, lines: Lines) -> Iterator[Interaction]:
        """Yield the ratings."""
        return lines(self.interactions[0], self.rating, head=self.heads[0])

    def read_items(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield the movies."""
        if self.items:
            rows = lines(self.items, self.movie, self.encoding, self.heads[1])
            yield from (row for row in rows if row.token in wanted)

    def read_users(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield the users."""
        if self.users:
            rows = lines(self.users, self.user, self.encoding, self.heads[2])
            yield from (row for row in rows if row.token in wanted)

    def rating(self, line: str) -> Interaction:
        """Read a line of the first file."""
        user_id, item_id, rating, time = cells(line, self.separator, 4)
        return token(user_id), token(item_id), number(rating), number(time)

    def movie(self, line: str) -> Described:
        """Read a line of the second."""
        raise NotImplementedError

    def user(self, line: str) -> Described:
        """Read a line of the third."""
        raise NotImplementedError


def movie_row(item_id: str, title: str, genres: Iterable[str]) -> Described:
    """Return the row of a movie, with the year out of its title."""
    title = cell(title)
    found = _YEAR.fullmatch(title)
    name, year = (found[1], found[2]) if found else (title, "")
    return Described(token(item_id), (name, year, words(map(cell, genres))))


def user_row(user_id: str, *more: str) -> Described:
    """Return the row of a user: age, gender, occupation, zip code."""
    return Described(token(user_id), tuple(map(cell, more)))


def genres_of(text: str) -> list[str]:
    """Return the genres of a cell with bars between."""
    return [] if text == NO_GENRES else text.split("|")
