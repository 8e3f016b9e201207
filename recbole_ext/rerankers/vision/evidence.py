"""What a model is told of a candidate beside its title: nothing, a text about its picture, or it.

A candidate without is told of by its title alone; that is counted, and why is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from recbole_ext.features.encoded import NoContent, text_hash
from recbole_ext.features.images import Pictures, read_images
from recbole_ext.features.texts import read_texts
from recbole_ext.features.writing import TEXTS
from recbole_ext.rerankers.vision.pixels import Picture, PixelCache
from recbole_ext.types import UserError


class Evidence:
    """Tells nothing: ``text_only``.

    Attributes:
        n_asked: Items that were asked for.
        problems: Item -> why nothing is told of it.
    """

    what = "text"

    def __init__(self) -> None:
        self.n_asked: set[str] = set()
        self.problems: dict[str, str] = {}

    def text(self, item: str) -> str:
        """Return what is told in words."""
        return ""

    def picture(self, item: str) -> Picture | None:
        """Return the picture that is shown."""
        return None

    def digest(self) -> str:
        """Return a hash of all that may be told."""
        return ""

    def check(self, items: Collection[str]) -> None:
        """Refuse evidence that is of none of the dataset's items.

        Raises:
            UserError: With a token of each.
        """

    def say(self) -> None:
        """Log of how many items nothing is told, and why of the first."""
        if not self.problems:
            return
        item, why = next(iter(self.problems.items()))
        logging.getLogger().warning(
            "%d of %d candidates are without %s, and have their title alone; the first is '%s': %s",
            *(len(self.problems), len(self.n_asked), self.what, item, why),
        )

    def _lacks(self, item: str, why: str) -> None:
        self.problems[item] = why


class WrittenEvidence(Evidence):
    """Tells what a model wrote about the picture.

    Args:
        texts: Folder of ``recbole-ext captions`` or ``summaries``, or a file of texts.
        command: That writes them, for errors.
    """

    def __init__(self, texts: str, command: str) -> None:
        super().__init__()
        if not texts:
            raise UserError(
                f"this evidence is read from texts; set texts to the folder that recbole-ext "
                f"{command} wrote"
            )
        path = Path(texts)
        self.path = path / TEXTS if path.is_dir() else path
        if not self.path.is_file():
            raise UserError(f"texts: there is no file {self.path}; write it: recbole-ext {command}")
        self.what = f"a text of recbole-ext {command}"
        self.texts = read_texts(self.path)

    def text(self, item: str) -> str:
        """Return the text."""
        self.n_asked.add(item)
        found = self.texts.get(item)
        if not found:
            self._lacks(item, f"{self.path} has none")
        return found or ""

    def digest(self) -> str:
        """Return a hash of the texts."""
        return text_hash(json.dumps(sorted(self.texts.items())))

    def check(self, items: Collection[str]) -> None:
        """Refuse texts on none of the items."""
        _refuse_foreign(f"texts: {self.path}", self.texts, items)


class ShownEvidence(Evidence):
    """Shows the picture.

    Args:
        images: Folder of pictures named by their tokens, or a CSV of files.
        cache: Reads them.
    """

    what = "a picture"

    def __init__(self, images: str, cache: PixelCache) -> None:
        super().__init__()
        if not images:
            raise UserError("raw_image shows pictures; set images to their folder or CSV")
        self.images, self.cache = images, cache
        self.files: dict[str, Pictures | None] = read_images(images)

    def picture(self, item: str) -> Picture | None:
        """Return the first picture."""
        self.n_asked.add(item)
        if item in self.problems:
            return None
        files = self.files.get(item)
        try:
            if not files:
                raise NoContent("there is no picture of it")
            return self.cache.picture(files[0])
        except NoContent as error:
            self._lacks(item, str(error))
            return None

    def digest(self) -> str:
        """Return a hash of the files' names, sizes and times: to read all would take minutes."""
        digest = hashlib.sha256()
        for item, files in sorted(self.files.items()):
            for path in (files or ())[:1]:
                found = path.stat() if path.is_file() else None
                known = (found.st_size, found.st_mtime_ns) if found else None
                digest.update(f"{item} {path} {known}\n".encode())
        return digest.hexdigest()[:32]

    def check(self, items: Collection[str]) -> None:
        """Refuse pictures of none of the items."""
        _refuse_foreign(f"images: {self.images}", self.files, items)


def _refuse_foreign(what: str, found: Mapping[str, object], items: Collection[str]) -> None:
    if items and not any(item in found for item in items):
        first, own = next(iter(found), None), next(iter(items))
        raise UserError(
            f"{what} is of none of the dataset's items: it has {first!r}, and they are as {own!r}; "
            "name that of this dataset"
        )
