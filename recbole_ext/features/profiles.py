"""Prompts for user preferences and item descriptions; cut-offs, without which a profile leaks.

A profile written from a history that contains the target gives the answer away. So each prompt has
the events of the training history **at or before** a cut-off, which is kept with the text, and
training leaves out the pairs whose target is not after it (``recbole_ext.modules.cutoffs``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ext.features.manifest import MAY_LEAK
from recbole_ext.features.template import Template
from recbole_ext.features.texts import read_table, read_texts, render
from recbole_ext.features.writing import Texts
from recbole_ext.types import UserError

Histories = Mapping[str, Sequence[tuple[str, float]]]
"""User token -> (item token, time) of the user's training interactions."""

PROFILE = """\
Below is what one user chose, the oldest first.

{history}

Describe this user's preferences in three or four sentences: which kinds, themes, styles and times \
the choices have in common, and how they have changed of late. Write about the taste, not about \
single titles, and do not guess what comes next.
"""
DESCRIPTION = """\
Below is what is known of one item.

{fields}

Describe it in two or three sentences: what it is, what it is about and whom it may suit. Add only \
what is common knowledge about it.
"""


def profile_prompts(
    histories: Histories,
    items: Mapping[str, Mapping[str, str]],
    cutoff: float | Mapping[str, float],
    *,
    template: str = PROFILE,
    line: str | None = None,
    max_items: int = 50,
) -> tuple[dict[str, str | None], dict[str, float]]:
    """Return the prompt and the cut-off of each user: what ``write_texts`` takes.

    Args:
        histories: Training interactions only; their order decides between equal times.
        items: Item token -> field -> text, from ``read_atomic``.
        cutoff: One time for all, or each user's own, as from :func:`own_cutoffs`.
        template: With ``{history}``, the lines of the items.
        line: Template of an item's line, as ``{title} ({genre})``; by default the title and, where
            the items have them, the categories.
        max_items: The latest so many events are in the prompt.

    Returns:
        User token -> prompt, ``None`` where no event up to the cut-off has a title; and user
        token -> cut-off.

    Raises:
        UserError: Naming the template's field, or the user whose cut-off is missing or no number.
    """
    asking = Template(template, ["history"], "the template of profiles")
    if max_items < 1:
        raise UserError(f"max_items is {max_items}; a profile is of one item or more")
    lines = render(items, line or default_line(items), "the item file")
    cutoffs = {user: _cutoff_of(user, cutoff) for user, events in histories.items() if events}
    prompts: dict[str, str | None] = {}
    for user, events in histories.items():  # one without events has no cut-off, and needs none
        past = [event for event in events if event[1] <= cutoffs[user]]
        past = sorted(past, key=lambda event: event[1])[-max_items:]
        told = [text for item, _ in past if (text := lines.get(item))]
        history = "\n".join(f"- {text}" for text in told)
        prompts[user] = asking.fill({"history": history}) if told else None
    return prompts, cutoffs


def description_prompts(
    items: Mapping[str, Mapping[str, str]],
    *,
    template: str = DESCRIPTION,
    where: str = "the template of descriptions",
) -> dict[str, str | None]:
    """Return the prompt of each item, ``None`` where all the fields in it are empty.

    Args:
        items: Item token -> field -> text, from ``read_atomic``.
        template: With ``{fields}``, all fields that are not empty, or with fields by their names.
        where: What it is a template of, for errors.

    Raises:
        UserError: Naming the field of the template that the items do not have.
    """
    names = list(next(iter(items.values()), {}))
    asking = Template(template, ["fields", *names], where)
    prompts: dict[str, str | None] = {}
    for item, row in items.items():
        filled = {name: text.strip() for name, text in row.items() if text.strip()}
        listed = "\n".join(f"{name}: {text}" for name, text in filled.items())
        given = {"fields": listed, **row}
        is_told = any(given[name].strip() for name in asking.fields)
        prompts[item] = asking.fill(given) if is_told else None
    return prompts


def read_template(path: str | Path) -> str:
    """Return a template from a file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the template {path}: {error}; name a file of text in UTF-8"
        ) from error


def own_cutoffs(histories: Histories, share: float = 1.0) -> dict[str, float]:
    """Return the time of each user's event that ends a share of the history.

    With 1 it is the last training interaction: the text tells of all of them, so it serves the
    validation and test of a leave-one-out split, and no training pair is usable with it. Texts to
    train with need a smaller share: .5 leaves the later half of the pairs.

    Args:
        histories: Training interactions only; a user without any has no cut-off, and none is given.
        share: Above 0, up to 1.
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of a history is above 0 and at most 1, not {share}")
    times = {user: sorted(time for _, time in events) for user, events in histories.items()}
    return {user: t[math.ceil(share * len(t)) - 1] for user, t in times.items() if t}


def default_line(items: Mapping[str, Mapping[str, str]]) -> str:
    """Return the template of an item's line: the title and, where there are, the categories.

    Raises:
        UserError: No field has ``title`` or ``name`` in its name.
    """
    names = list(next(iter(items.values()), {}))
    titles = [name for name in names if "title" in name.lower() or "name" in name.lower()]
    if not titles:
        raise UserError(
            "no field of the items is called a title or a name; say how an item reads, as "
            f"line='{{{names[0] if names else 'title'}}}' (the fields are {', '.join(names)})"
        )
    kinds = [n for n in names if any(w in n.lower() for w in ("genre", "categor", "class"))]
    return f"{{{titles[0]}}}" + (f" ({{{kinds[0]}}})" if kinds else "")


def import_texts(path: str | Path, cutoff: float | None = None, may_leak: bool = False) -> Texts:
    """Read profiles that were written elsewhere, or by ``write_texts``.

    Args:
        path: As ``read_texts`` takes it; a table may have a column ``cutoff``.
        cutoff: The time up to which interactions went into all of them.
        may_leak: Take them though nobody knows; the manifest says so then.

    Raises:
        UserError: Nothing tells of a cut-off, or two things do.
    """
    texts = read_texts(path)
    found = _column_of_cutoffs(Path(path), texts)
    if found is not None and cutoff is not None:
        raise UserError(f"{path} has a cut-off for each row already; leave cutoff out")
    if cutoff is not None:
        return Texts(texts, dict.fromkeys(texts, _cutoff_of("", cutoff)))
    if found is not None:
        return Texts(texts, found)
    if not may_leak:
        raise UserError(
            f"{path} does not tell up to which time interactions went into its texts, so they may "
            "hold what is to be predicted; give --cutoff=<that time>, or --i_know_it_may_leak to "
            "take them all the same"
        )
    logging.getLogger().warning("%s %s; results with them prove nothing", path, MAY_LEAK)
    return Texts(texts, None, (MAY_LEAK,))


def _column_of_cutoffs(path: Path, texts: Mapping[str, Any]) -> dict[str, float] | None:
    """Return token -> cut-off, ``None`` where the file has no column of them, or an empty one."""
    if path.suffix == ".json":
        return None
    table = read_table(path)
    if "cutoff" not in table:
        return None
    pairs = zip(table[table.columns[0]].astype(str), table["cutoff"], strict=True)
    found = {token: time for token, time in pairs if str(time) not in ("", "nan", "None")}
    if not found:
        return None
    return {token: _cutoff_of(token, found) for token, text in texts.items() if text is not None}


def _cutoff_of(user: str, cutoff: Any) -> float:
    """Return a user's cut-off, which must be a number: infinity is none."""
    if isinstance(cutoff, Mapping):
        cutoff = cutoff.get(user)
    whose = f" of '{user}'" if user else ""
    try:
        time = float(cutoff)
    except (TypeError, ValueError):
        raise UserError(f"the cut-off{whose} is {cutoff!r}; a time is meant") from None
    if not math.isfinite(time):
        raise UserError(f"the cut-off{whose} is {time}; a time is meant, in the data's unit")
    return time
