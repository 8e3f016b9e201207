"""MovieLens-100k: ``u.data`` with tabs, ``u.item`` and ``u.user`` with bars, in Latin-1."""

from __future__ import annotations

from itertools import compress

from recbole_ext.data.convert.movielens import USER_COLUMNS, MovieLens, movie_row, user_row
from recbole_ext.data.convert.raw import Described, cells

GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance"),
    *("Sci-Fi", "Thriller", "War", "Western"),
)
"""In the order of the flags of ``u.item``, as ``u.genre`` lists them."""


class Format(MovieLens):
    """MovieLens-100k."""

    name = "movielens-100k"
    looked_for = "u.data (with u.item and u.user)"
    files = ("u.data", "u.item", "u.user")
    separator = "\t"
    user_columns = USER_COLUMNS

    def movie(self, line: str) -> Described:
        """Read number, title, two dates, an address, and a flag for each genre."""
        item_id, title, _released, _video, _address, *flags = line.split("|")
        if len(flags) != len(GENRES) or set(flags) - {"0", "1"}:
            raise ValueError(f"not {len(GENRES)} flags of genres at the end, each 0 or 1")
        return movie_row(item_id, title, compress(GENRES, (flag == "1" for flag in flags)))

    def user(self, line: str) -> Described:
        """Read number, age, gender, occupation, zip code."""
        user_id, age, gender, occupation, zip_code = cells(line, "|", 5)
        return user_row(user_id, age, gender, occupation, zip_code)
