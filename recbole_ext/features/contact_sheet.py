"""A contact sheet: pictures of some items, each with its nearest neighbours by stored vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recbole_ext.atomic import replacing
from recbole_ext.features.encoded import NoContent
from recbole_ext.features.images import Pictures, open_image
from recbole_ext.features.inspect import nearest, pooled
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError

CAPTION_LINES, FONT_SIZE, GAP = 3, 11, 8
LINE = FONT_SIZE + 3
MOST_THUMBNAILS = 2000


def contact_sheet(
    path: str | Path,
    store: FeatureStore,
    pictures: Mapping[str, Pictures | None],
    *,
    titles: Mapping[str, str] | None = None,
    n_items: int = 8,
    n_neighbours: int = 5,
    side: int = 128,
    seed: int = 0,
) -> list[list[str]]:
    """Draw some items, each in a row with its nearest neighbours, as a PNG.

    Args:
        path: Of the PNG.
        store: The feature.
        pictures: Token -> its files, as :func:`~recbole_ext.features.images.read_images` gives
            them; the first that can be read is shown.
        titles: Token -> what is written under it, beside the token.
        n_items: Rows, drawn at random from the items that have a vector.
        n_neighbours: Neighbours in each row.
        side: Longest side of a thumbnail, in pixels.
        seed: Of the draw.

    Returns:
        The tokens of each row, the item first.

    Raises:
        UserError: Fewer than two items have a vector, or the numbers are none to draw.
    """
    _check(n_items, n_neighbours, side)
    present = np.flatnonzero(store.rows["present"].to_numpy(bool))  # [n]
    if len(present) < 2:
        raise UserError(
            f"{store.folder}: neighbours need two rows with vectors; build the feature of more "
            f"{store.manifest.of}s"
        )
    draw = np.random.default_rng(seed).permutation(len(present))[:n_items]  # [n_items]
    found, cosines = nearest(pooled(store, present), draw, n_neighbours)  # [n_items, K] twice
    tokens = store.rows["token"].to_numpy(object)[present]
    rows = [[tokens[i], *tokens[near]] for i, near in zip(draw, found, strict=True)]
    width, height = side + GAP, side + CAPTION_LINES * LINE + GAP
    sheet = Image.new("RGB", (len(rows[0]) * width + GAP, len(rows) * height + GAP), "white")
    for row, (names, values) in enumerate(zip(rows, cosines, strict=True)):
        for column, token in enumerate(names):
            about = f"{values[column - 1]:.3f} " if column else ""
            about += f"{token} {(titles or {}).get(token, '')}"
            place = (GAP + column * width, GAP + row * height)
            _draw(sheet, place, side, pictures.get(token), about)
    with replacing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")
    return rows


def _check(n_items: int, n_neighbours: int, side: int) -> None:
    if min(n_items, n_neighbours, side) < 1:
        raise UserError(
            f"a contact sheet of {n_items} items with {n_neighbours} neighbours of {side} pixels "
            "is none; all three are numbers from 1"
        )
    if n_items * (n_neighbours + 1) > MOST_THUMBNAILS:
        raise UserError(
            f"a contact sheet of {n_items} items with {n_neighbours} neighbours has more than "
            f"{MOST_THUMBNAILS} pictures; ask for fewer"
        )


def _draw(
    sheet: Image.Image, place: tuple[int, int], side: int, paths: Pictures | None, about: str
) -> None:
    x, y = place
    pen = ImageDraw.Draw(sheet)
    thumbnail = _thumbnail(paths, side)
    if thumbnail is None:
        pen.rectangle((x, y, x + side - 1, y + side - 1), outline="grey")
        pen.line((x, y, x + side - 1, y + side - 1), fill="grey")
    else:
        left, top = (side - thumbnail.width) // 2, side - thumbnail.height
        sheet.paste(thumbnail, (x + left, y + top))
    font = ImageFont.load_default(FONT_SIZE)
    for i, line in enumerate(_lines(about, lambda text: pen.textlength(text, font) <= side)):
        pen.text((x, y + side + 2 + i * LINE), line, fill="black", font=font)


def _lines(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break a text at its words into lines that fit; what is too long ends in dots."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [line for line in lines if line]
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], f"{lines[CAPTION_LINES - 1]}..."]
    return [line if fits(line) else _cut(line, fits) for line in lines]


def _cut(line: str, fits: Callable[[str], bool]) -> str:
    while line and not fits(f"{line}..."):
        line = line[:-1]
    return f"{line}..."


def _thumbnail(paths: Pictures | None, side: int) -> Image.Image | None:
    for path in paths or ():
        try:
            image = open_image(path)
        except NoContent:
            continue
        image.thumbnail((side, side))
        return image
    return None
