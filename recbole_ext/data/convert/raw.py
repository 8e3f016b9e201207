"""What a format of raw files is: where they are, and how their lines read.

A format is a file of :mod:`recbole_ext.data.convert.formats`, ``<family>_<version>.py`` with a
class ``Format``; ``recbole-ext convert <family>`` finds it by that name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.reading import MISSING

Interaction = tuple[str, str, float, float]
"""User, item, rating, and seconds since 1970."""

_MISSING = frozenset(MISSING)
_LARGEST = 1e15


class Described(NamedTuple):
    """What raw files say of an item or a user.

    Attributes:
        token: Which.
        cells: Texts of the format's columns, fit for a tab-separated file.
        links: Addresses of its pictures, the main one first.
    """

    token: str
    cells: tuple[str, ...]
    links: tuple[str, ...] = ()


class RawFormat(ABC):
    """The raw files of one dataset, in one of the forms in which datasets are handed out.

    Args:
        interactions: Files of interactions, in order.
        items: File of what is known of items.
        users: And of users.
    """

    name: ClassVar[str]
    """As ``amazon-2018``."""
    looked_for: ClassVar[str]
    """Names of the files, for the error where there are none."""
    item_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the ``.item`` file after the token, as ``title:token_seq``."""
    user_columns: ClassVar[tuple[str, ...]] = ()
    has_links: ClassVar[bool] = False

    def __init__(
        self, interactions: Sequence[Path], items: Path | None = None, users: Path | None = None
    ) -> None:
        self.interactions, self.items, self.users = tuple(interactions), items, users

    @classmethod
    @abstractmethod
    def find(cls, source: Path) -> list[RawFormat]:
        """Return the sets of such files in a folder, or the one that a file belongs to."""

    @abstractmethod
    def read_interactions(self, lines: Lines) -> Iterator[Interaction]:
        """Yield the interactions, in the order of the files."""

    def read_items(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield what is known of the wanted items; one may come twice."""
        return iter(())

    def read_users(self, lines: Lines, wanted: Container[str]) -> Iterator[Described]:
        """Yield what is known of the wanted users; one may come twice."""
        return iter(())


def cells(line: str, separator: str, n: int) -> list[str]:
    """Return the cells of a line.

    Raises:
        ValueError: There are more or fewer.
    """
    found = line.split(separator)
    if len(found) != n:
        raise ValueError(f"{len(found)} cells instead of {n}")
    return found


def token(value: Any) -> str:
    """Return an id as an atomic file can hold it.

    Raises:
        ValueError: It is empty, no text, a word that RecBole reads as missing ("NA"), or has a
            character that ends a cell or quotes one.
    """
    if not isinstance(value, str):
        raise ValueError(f"an id is text, not {type(value).__name__}")
    value = value.strip()
    if value in _MISSING or not value.isprintable() or '"' in value:
        raise ValueError(f"{value[:40]!r} is no id")
    return value


def number(value: Any) -> float:
    """Return a rating or a time.

    Raises:
        ValueError: It is no finite number, or far beyond all ratings and times.
    """
    is_text = isinstance(value, str)
    if is_text and ("_" in value or not value.isascii()):  # which Python would take for a number
        raise ValueError(f"{value[:40]!r} is no number")
    if is_text or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        found = float(value)
        if abs(found) < _LARGEST:  # NaN is not
            return found
    raise ValueError(f"{str(value)[:40]!r} is no number")
