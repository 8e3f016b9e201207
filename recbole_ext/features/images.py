"""Pictures by token, from a folder or a CSV of files; each is opened as RGB, whatever it is.

The content of a token is the tuple of its files. A picture that is missing, damaged or too large
is left out; only a token that has no other is without content.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from recbole_ext.features.encoded import NoContent
from recbole_ext.types import UserError, suggest

Pictures = tuple[Path, ...]
"""Files of one token, in order."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What a file may hold, whatever its suffix says; no other decoder of Pillow is tried."""

MAX_PIXELS = 1 << 26
"""Larger pictures are refused before they are decoded: 67 million pixels take 200 MB."""

MAX_RATIO = 64
"""Longer strips are refused: scaled by their short side they would be as large as a bomb."""


def read_images(source: str | Path) -> dict[str, Pictures | None]:
    """Find the pictures of each token.

    Args:
        source: A folder, where a file's name without its suffix is the token; or a CSV whose first
            line names the columns, with the token in the first and the file in the second (or in
            the one named ``file``), relative to the CSV. Several rows of one token are several
            pictures of it, in order; an empty file is none.

    Returns:
        Token -> its files; ``None`` where the CSV names none. Whether they exist is seen later.

    Raises:
        UserError: Naming the folder or the file, and the line where it is about one.
    """
    source = Path(source)
    if source.is_dir():
        return _of_folder(source)
    if source.suffix.lower() != ".csv":
        raise UserError(
            (
                f"{source} is no folder of pictures and no .csv of their files"
                if source.exists()
                else f"there is no folder or file {source}"
            )
            + "; name a folder of pictures or a CSV (item_id,file)"
        )
    try:
        with open(source, encoding="utf-8", newline="") as stream:
            return _of_rows(source, csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {source}: {error}; save it as UTF-8, with commas") from None


def _of_folder(folder: Path) -> dict[str, Pictures | None]:
    found: dict[str, Pictures | None] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        other = found.get(path.stem)
        if other:
            raise UserError(
                f"{folder} has two pictures of '{path.stem}', {other[0].name} and {path.name}; "
                "keep one, or name both in a CSV (item_id,file)"
            )
        found[path.stem] = (path,)
    if not found:
        raise UserError(
            f"{folder} has no file that ends in {', '.join(SUFFIXES)}; name another folder, or "
            "a CSV (item_id,file)"
        )
    return found


def _of_rows(path: Path, lines: Iterator[list[str]]) -> dict[str, Pictures | None]:
    columns = next(lines, [])
    if len(columns) < 2:
        raise UserError(
            f"{path}: the first line must name two columns, a token and a file, as in item_id,file"
        )
    if len(columns) > 2 and "file" not in columns[1:]:
        raise UserError(
            f"{path}: which of the columns {', '.join(columns[1:])} is the file? name it 'file'"
            f"{suggest('file', columns[1:])}"
        )
    column = 1 if len(columns) == 2 else columns.index("file", 1)
    found: dict[str, list[Path]] = {}
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(columns):
            raise UserError(
                f"{path}, line {number}: {len(line)} columns where the first line has "
                f"{len(columns)}; write as many"
            )
        files = found.setdefault(line[0], [])
        if not line[column].strip():
            continue
        file = path.parent / line[column].strip()
        if file in files:
            raise UserError(
                f"{path}, line {number}: '{line[0]}' has the file {line[column]} already; keep one"
            )
        files.append(file)
    if not found:
        raise UserError(f"{path} has no row below its first line; write a row for each picture")
    return {token: tuple(files) or None for token, files in found.items()}


def image_hash(paths: Sequence[Path]) -> str:
    """Return the hash of the files' bytes, in order; their names do not count.

    A file that cannot be read counts as such, so that the hash is another one when it is there.

    Raises:
        NoContent: None of them can be read.
    """
    digest = hashlib.sha256()
    problem, n_read = "there is no file", 0
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
            n_read += 1
        except OSError as error:
            digest.update(b"cannot be read")
            problem = f"{path}: {(error.strerror or str(error)).lower()}"
    if not n_read:
        raise NoContent(problem)
    return digest.hexdigest()[:32]


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture as RGB, upright.

    The first frame of an animation; turned as its EXIF says; transparency over white; 16 bits
    scaled to 8. The size is read from the header, and a bomb is refused before it is decoded.

    Args:
        path: Of the file.
        max_pixels: A larger picture is refused.

    Raises:
        NoContent: With the reason.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise NoContent(
                    f"{path}: {width} x {height} pixels are more than the {max_pixels} allowed"
                )
            if max(width, height) > MAX_RATIO * min(width, height):
                raise NoContent(
                    f"{path}: a strip of {width} x {height} pixels, longer than {MAX_RATIO} to 1"
                )
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image))
    except NoContent:
        raise
    except UnidentifiedImageError:
        reason = f"no picture that can be read ({', '.join(FORMATS)})"
    except Image.DecompressionBombError:
        reason = f"more than the {max_pixels} pixels allowed"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except Exception as error:  # decoders raise anything at damaged bytes
        reason = f"damaged ({type(error).__name__}: {error})"
    raise NoContent(f"{path}: {reason}")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)  # [H, W]
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
