"""MovieLens: 100k, 1M and latest, from raw files to atomic ones."""

from __future__ import annotations

import pytest

from recbole_ext.types import UserError
from tests.data.convert.samples import convert_files, flags, rows, write

INTER = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
USER = ["user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"]
MOVIE = ["item_id:token", "movie_title:token_seq", "release_year:token", "genre:token_seq"]


def test_100k(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "ml"
    write(raw / "u.data", "196\t242\t3\t881250949", "22\t377\t1\t878887116")
    site = "http://us.imdb.com/M/title-exact?Kolya%20(1996)"
    write(
        raw / "u.item",
        f"242|Kolya (1996)|24-Jan-1997||{site}|{flags(5)}",
        f"377|Caf\u00e9 (Nowhere) (1994)|01-Jan-1994|||{flags(1, 4, 10)}",
        f"900|Nobody saw it (1990)|01-Jan-1990|||{flags(0)}",
        encoding="latin-1",
    )
    write(raw / "u.user", "196|49|M|writer|55105", "22|25|M|writer|40206", "1|24|M|x|8")
    done = convert_files(raw, out, "movielens")
    assert rows(out / "ml.inter") == [
        INTER,
        ["196", "242", "3", "881250949"],
        ["22", "377", "1", "878887116"],
    ]
    assert rows(out / "ml.item") == [
        MOVIE,
        ["242", "Kolya", "1996", "Comedy"],
        ["377", "Caf\u00e9 (Nowhere)", "1994", "Action Children's Film-Noir"],
    ]
    assert rows(out / "ml.user") == [
        USER,
        ["196", "49", "M", "writer", "55105"],
        ["22", "25", "M", "writer", "40206"],
    ]
    assert done.format == "movielens-100k" and not (out / "images.csv").exists()


def test_1m_in_latin_1_and_10m_in_utf_8(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "ml"
    write(raw / "ratings.dat", "1::1193::5::978300760", "1::73::3.5::978302109")
    latin = "73::Mis\u00e9rables, Les (1995)::Drama|Musical".encode("latin-1")
    utf = "1193::Am\u00e9lie (2001)::(no genres listed)".encode()
    write(raw / "movies.dat", latin, utf)
    write(raw / "users.dat", "1::F::1::10::48067")
    assert convert_files(raw, out, "movielens").format == "movielens-1m"
    assert rows(out / "ml.inter")[1:] == [
        ["1", "1193", "5", "978300760"],
        ["1", "73", "3.5", "978302109"],
    ]
    assert rows(out / "ml.item")[1:] == [
        ["73", "Mis\u00e9rables, Les", "1995", "Drama Musical"],
        ["1193", "Am\u00e9lie", "2001", ""],
    ]
    assert rows(out / "ml.user")[1:] == [["1", "1", "F", "10", "48067"]]


def test_latest(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "ml"
    write(
        raw / "ratings.csv",
        *("userId,movieId,rating,timestamp", "1,11,4.0,964982703\r", "1,2,0.5,964981247"),
        "2,151,3.5,964983815",
    )
    write(
        raw / "movies.csv",
        "movieId,title,genres",
        '11,"American President, The (1995)",Comedy|Drama',
        '2,"""Great"" Show, The (1994\u20132013)",(no genres listed)',
        "151,Babylon 5,Sci-Fi",
    )
    write(
        raw / "links.csv", "movieId,imdbId,tmdbId", "11,0112346,9087", "2,0113497,", '151,1\t2,"9'
    )
    write(raw / "tags.csv", "userId,movieId,tag,timestamp", "2,11,politics,1445714994")
    assert convert_files(raw, out, "movielens").format == "movielens-latest"
    assert rows(out / "ml.inter")[1:] == [
        ["1", "11", "4", "964982703"],
        ["1", "2", "0.5", "964981247"],
        ["2", "151", "3.5", "964983815"],
    ]
    assert rows(out / "ml.item") == [
        [*MOVIE, "imdb_id:token", "tmdb_id:token"],
        ["11", "American President, The", "1995", "Comedy Drama", "0112346", "9087"],
        ["2", "''Great'' Show, The", "1994", "", "0113497", ""],
        ["151", "Babylon 5", "", "Sci-Fi", "1 2", "''9"],
    ]
    assert not (out / "ml.user").exists()


def test_malformed_lines_are_counted_and_named(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "ml"
    bad = [
        "1\t2\t3",
        "1\t2\tfive\t4",
        "1\t\t3\t4",
        "1\t2\t3\tnan",
        "1\t2\t3\tinf",
        b"\xff\t1\t1\t1",
        "1\tNA\t3\t4",  # RecBole would read it as missing
        *("1\t2\t1_0\t4", "1\t2\t3\t\u0664"),  # Python takes them for numbers
    ]
    write(raw / "u.data", "1\t2\t3\t4", *bad, "", "2\t2\t3\t4")
    write(raw / "u.item", f"2|A (1990)||||{flags(1)}|1", f"2|A (1990)||||{flags(1)}")
    done = convert_files(raw, out, "movielens")
    assert len(rows(out / "ml.inter")) == 3
    ratings, movies = done.sources
    assert (ratings["lines"], ratings["malformed"]) == (11, 9)
    assert [one["line"] for one in ratings["first_malformed"]] == [2, 3, 4, 5, 6]
    reasons = [one["reason"] for one in ratings["first_malformed"]]
    assert reasons[0] == "3 cells instead of 4"
    assert reasons[1] == "could not convert string to float: 'five'"
    assert reasons[2:] == ["'' is no id", "'nan' is no number", "'inf' is no number"]
    assert movies["malformed"] == 1 and "19 flags" in movies["first_malformed"][0]["reason"]


def test_ratings_are_enough_and_two_versions_are_too_many(tmp_path):
    raw = tmp_path / "raw"
    write(raw / "u.data", "1\t2\t3\t4")
    assert convert_files(raw, tmp_path / "a", "movielens").sides == {}
    assert not (tmp_path / "a" / "a.item").exists()
    write(raw / "ratings.dat", "7::2::3::4")
    sentence = r"2 sets of interactions, u.data \(movielens-100k\), ratings.dat \(movielens-1m\)"
    with pytest.raises(UserError, match=f"{sentence}.*--source=.*u.data"):
        convert_files(raw, tmp_path / "b", "movielens")
    convert_files(raw / "ratings.dat", tmp_path / "b", "movielens")
    assert rows(tmp_path / "b" / "b.inter")[1:] == [["7", "2", "3", "4"]]
