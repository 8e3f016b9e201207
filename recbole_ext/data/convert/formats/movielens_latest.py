"""MovieLens latest, and 20M, 25M, 32M: ``ratings.csv``, ``movies.csv`` and ``links.csv``.

``tags.csv`` is left out: a tag is what some user did at some time, and as a property of the movie
it would tell of what came later.
"""

from __future__ import annotations

import csv
from collections.abc import Container, Iterator

from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.movielens import MovieLens, genres_of, movie_row
from recbole_ext.data.convert.raw import Described, cells, token
from recbole_ext.data.convert.text import cell

LINKS = "movieId,imdbId,tmdbId"
"""First line of ``links.csv``."""


class Format(MovieLens):
    """MovieLens latest."""

    name = "movielens-latest"
    looked_for = "ratings.csv (with movies.csv and links.csv)"
    files = ("ratings.csv", "movies.csv", "users.csv")  # there is none: it says nothing of users
    separator = ","
    heads = ("userId,movieId,rating,timestamp", "movieId,title,genres", "")
    encoding = "utf-8"
    item_columns = (*MovieLens.item_columns, "imdb_id:token", "tmdb_id:token")

    def read_items(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield the movies, with their numbers at IMDb and TMDB."""
        ids: dict[str, tuple[str, ...]] = {}
        links = self.interactions[0].with_name("links.csv")
        if self.items and links.is_file():
            ids = {item: more for item, more in lines(links, _link, head=LINKS) if item in wanted}
        for row in super().read_items(lines, wanted):
            yield row._replace(cells=(*row.cells, *ids.get(row.token, ("", ""))))

    def movie(self, line: str) -> Described:
        """Read number, title, which may be in quotes, and genres."""
        try:
            item_id, title, genres = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ValueError(str(error)) from None
        return movie_row(item_id, title, genres_of(genres))


def _link(line: str) -> tuple[str, tuple[str, str]]:
    item_id, imdb_id, tmdb_id = cells(line, ",", 3)
    return token(item_id), (cell(imdb_id), cell(tmdb_id))
