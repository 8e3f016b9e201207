"""Pictures as a model takes them, read and scaled once and kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.features.images import open_image
from recbole_ext.features.qwen_vision import Pixels, QwenReader


@dataclass(frozen=True)
class Picture:
    """A picture in a prompt: its file, and how many tokens it has there."""

    path: Path
    n_tokens: int


class PixelCache:
    """Preprocessed pixel values, the latest used.

    Args:
        reader: Scales pictures, and cuts them into patches.
        most_bytes: Of all values together; the one that was just read is kept in any case.
    """

    def __init__(self, reader: QwenReader, most_bytes: int) -> None:
        self.reader, self.most_bytes = reader, most_bytes
        self.n_read = 0
        self._kept: OrderedDict[Path, Pixels] = OrderedDict()
        self._n_tokens: dict[Path, int] = {}
        self._n_bytes = 0

    def picture(self, path: Path) -> Picture:
        """Return a picture, which is read the first time.

        Raises:
            NoContent: It cannot be read.
        """
        if path not in self._n_tokens:
            self._n_tokens[path] = self._pixels(path).n_tokens
        return Picture(path, self._n_tokens[path])

    def pixels(self, picture: Picture) -> Pixels:
        """Return the values of a picture."""
        return self._pixels(picture.path)

    def _pixels(self, path: Path) -> Pixels:
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        found = self.reader.pixels(open_image(path))
        self.n_read += 1
        self._kept[path] = found
        self._n_bytes += found.values.nbytes
        while self._n_bytes > self.most_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._n_bytes -= oldest.values.nbytes
        return found
