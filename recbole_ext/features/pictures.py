"""Downloads pictures by their addresses: each once, and again only where that may help.

A folder holds the pictures and ``pictures.csv``, a row for each address (``item_id``, ``file``,
``url``, ``problem``, ``gone``), which :func:`recbole_ext.features.images.read_images` takes. A
file's name has the hash of token and address, so what is there is known without the table too: a
call that was killed goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from recbole_ext.atomic import remove_leftovers, replacing
from recbole_ext.features.fetching import Fetcher, Refused
from recbole_ext.locks import sole_use
from recbole_ext.types import UserError

PICTURES = "pictures.csv"
COLUMNS = ("item_id", "file", "url", "problem", "gone")
SAVED_EVERY = 1000
"""Answers after which the table is written, so that a kill forgets few failures."""
LONGEST_TOKEN = 100
"""Characters of a token in a file's name."""


@dataclass
class Link:
    """An address, and what came of it.

    Attributes:
        token: Of the item.
        url: Of a picture of it.
        file: Name of the picture in the folder; empty where there is none.
        problem: Why not.
        gone: Whether the server says that there is none (404, 410), which asking will not change.
    """

    token: str
    url: str
    file: str = ""
    problem: str = ""
    gone: bool = False

    @property
    def stem(self) -> str:
        """The file's name without its suffix; the token in it is for people."""
        digest = hashlib.sha256(f"{self.token} {self.url}".encode()).hexdigest()[:16]
        return f"{quote(self.token, safe='')[:LONGEST_TOKEN]}-{digest}"


def read_links(path: Path, pictures: int) -> list[Link]:
    """Read ``item_id,url`` below a first line that names both.

    Args:
        path: Of the CSV, or of a folder that has it as ``images.csv``.
        pictures: The first so many of each item.

    Raises:
        UserError: Naming the file, and the line where it is about one.
    """
    path = path / "images.csv" if path.is_dir() else path
    found: dict[str, dict[str, None]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream)
            head = next(rows, [])
            if len(head) != 2 or "://" in head[1]:
                raise UserError(f"{path}: the first line must name two columns, as in item_id,url")
            for row in rows:
                if len(row) != 2 or not all(cell.strip() for cell in row):
                    raise UserError(
                        f"{path}, line {rows.line_num}: no token and address; correct it"
                    )
                urls = found.setdefault(row[0], {})
                if len(urls) < pictures:  # others are not held
                    urls[row[1].strip()] = None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        words = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {words}; name a conversion's images.csv") from None
    if not found:
        raise UserError(f"{path} has no row below its first line: there is nothing to download")
    return [Link(token, url) for token, urls in found.items() for url in urls]


def download(
    links: list[Link],
    folder: Path,
    fetch: Fetcher,
    workers: int = 8,
    retry_gone: bool = False,
) -> int:
    """Download what is not in the folder, and note in the links what came of them.

    Args:
        links: What is wanted.
        folder: Where to.
        fetch: Gets an address; of no use after an error.
        workers: Addresses at a time.
        retry_gone: Ask again for pictures that were not there (404, 410).

    Returns:
        How many pictures came.

    Raises:
        UserError: The folder cannot be written, or another process is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {folder}: {error.strerror}; name another") from None
    with sole_use(folder, what="the folder of pictures"):
        remove_leftovers(folder)
        there = {path.stem: path.name for path in folder.iterdir()}
        gone = {} if retry_gone else _gone(folder / PICTURES)
        for link in links:
            link.file = there.get(link.stem, "")
            if not link.file and link.url in gone:
                link.problem, link.gone = gone[link.url], True
        left = [link for link in links if not link.file and not link.gone]
        with tqdm(total=len(left), desc="pictures", disable=None) as bar:
            try:
                for number, _ in enumerate(_each(left, folder, fetch, workers), 1):
                    bar.update()
                    if number % SAVED_EVERY == 0:
                        _save(folder / PICTURES, links)
            finally:  # after Ctrl-C too
                _save(folder / PICTURES, links)
    return sum(bool(link.file) for link in left)


def problems_of(links: list[Link]) -> list[tuple[str, int]]:
    """Return why there are no pictures, the most frequent reason first."""
    return Counter(link.problem for link in links if not link.file).most_common()


def _each(links: list[Link], folder: Path, fetch: Fetcher, workers: int) -> Iterator[None]:
    """Get the pictures, ``workers`` at a time, and yield after each."""
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[None]] = set()
        try:
            for link in links:
                if len(running) >= 2 * workers:  # few wait: a list of millions is no list of tasks
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in done)
                running.add(pool.submit(_get, link, folder, fetch))
            yield from (one.result() for one in as_completed(running))
        except BaseException:
            fetch.pace.stop()  # or who waits for a server would be waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _get(link: Link, folder: Path, fetch: Fetcher) -> None:
    """Get one picture, and note what came of it."""
    try:
        found = fetch(link.url)
    except Refused as problem:
        link.problem, link.gone = str(problem), problem.gone
        return
    name = link.stem + found.suffix
    with replacing(folder / name) as temporary:
        temporary.write_bytes(found.data)
    link.file = name


def _gone(table: Path) -> dict[str, str]:
    """Return address -> problem of the pictures that were not there last time."""
    try:
        with open(table, encoding="utf-8", newline="") as stream:
            return {row["url"]: row["problem"] for row in csv.DictReader(stream) if row["gone"]}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise UserError(
            f"cannot read {table} ({type(error).__name__}: {error}); delete it: pictures that are "
            "there stay, and failures are tried again"
        ) from None


def _save(table: Path, links: list[Link]) -> None:
    with (
        replacing(table) as temporary,
        open(temporary, "w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(COLUMNS)
        for link in links:
            gone = "yes" if link.gone else ""
            rows.writerow([link.token, link.file, link.url, link.problem, gone])
