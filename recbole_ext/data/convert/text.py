"""Texts of raw files as cells of an atomic file, whose format has no way to quote."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

_CODE = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)
"""What has no end goes to the end, as in a browser: no place is looked at twice."""
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[a-zA-Z]\w*\s[^<>=]*=[^<>]*\Z")
"""A tag, or one with an attribute that was cut off."""
_PRICE = re.compile(
    r"(?:from\s*)?\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?:\s*-\s*\$?[\d,.]+)?",
    re.IGNORECASE | re.ASCII,
)
_DEAREST = 1e9


def cell(text: str) -> str:
    """Return a text on one line, without tabs, control characters and double quotes.

    A reader of RecBole's takes a double quote at the beginning of a cell for a quoted cell, which
    swallows what follows; two single ones look the same.
    """
    text = " ".join(text.replace('"', "''").split())
    return text if text.isprintable() else "".join(filter(str.isprintable, text))


def plain(value: Any) -> str:
    """Return a text, or several in a list, without HTML, as a cell; anything else is empty."""
    if isinstance(value, str):
        if "<" in value:
            value = _TAG.sub(" ", _CODE.sub(" ", value))
        return cell(html.unescape(value) if "&" in value else value)
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, map(plain, value)))
    return ""


def words(values: Iterable[str]) -> str:
    """Return names as the members of a ``token_seq`` cell: each once, blanks as underscores."""
    return " ".join(dict.fromkeys(name.replace(" ", "_") for name in values if name))


def flat(value: Any) -> Iterator[str]:
    """Yield the plain texts of a list, or of a list of lists."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from flat(one)
    else:
        yield plain(value)


def price(value: Any) -> str | None:
    """Return a price as a number; of a range ("$9.99 - $24.99") the lower end.

    Returns:
        Empty where there is none; ``None`` where something is there and it is no price.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.15g}" if 0 <= value < _DEAREST else None
    if value is None or value in ("", "None"):
        return ""
    found = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
    amount = found[1].replace(",", "") if found else ""
    return amount if amount and float(amount) < _DEAREST else None
