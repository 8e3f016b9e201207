"""MovieLens-1M, and 10M without users: ``ratings.dat``, ``movies.dat``, ``users.dat`` with ``::``.

1M is in Latin-1 and 10M in UTF-8: a title that is UTF-8 is read so, for none in Latin-1 is.
"""

from __future__ import annotations

from contextlib import suppress

from recbole_ext.data.convert.movielens import (
    USER_COLUMNS,
    MovieLens,
    genres_of,
    movie_row,
    user_row,
)
from recbole_ext.data.convert.raw import Described, cells


class Format(MovieLens):
    """MovieLens-1M."""

    name = "movielens-1m"
    looked_for = "ratings.dat (with movies.dat and users.dat)"
    files = ("ratings.dat", "movies.dat", "users.dat")
    separator = "::"
    user_columns = USER_COLUMNS

    def movie(self, line: str) -> Described:
        """Read number, title, genres."""
        item_id, title, genres = cells(line, "::", 3)
        with suppress(UnicodeDecodeError):
            title = title.encode(self.encoding).decode("utf-8")
        return movie_row(item_id, title, genres_of(genres))

    def user(self, line: str) -> Described:
        """Read number, gender, age, occupation, zip code; age and occupation are codes."""
        user_id, gender, age, occupation, zip_code = cells(line, "::", 5)
        return user_row(user_id, age, gender, occupation, zip_code)
