"""MIND's vectors of entities (``entity_embedding.vec``, TransE on Wikidata), of both folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.mind_files import Source
from recbole_ext.data.convert.raw import token
from recbole_ext.data.convert.writing import text_file


class EntityReader:
    """Reads the lines of all files, whose vectors are of one length."""

    def __init__(self) -> None:
        self._size = 0

    def __call__(self, line: str) -> tuple[str, str]:
        """Return the entity, and its numbers as they are written.

        Raises:
            ValueError: It is malformed.
        """
        name, _, numbers = line.strip().partition("\t")
        vector = np.array(numbers.split("\t"), dtype=np.float32)  # [F]
        if not np.isfinite(vector).all():
            raise ValueError("a number is none")
        self._size = self._size or len(vector)
        if len(vector) != self._size:
            raise ValueError(f"{len(vector)} numbers instead of {self._size}")
        return token(name), numbers


def write_entity_vectors(path: Path, sources: list[Source], lines: Lines) -> int:
    """Write the vectors of all folders, an entity once; return how many, 0 without a file.

    Args:
        path: Of the file.
        sources: The folder of training, and that of the test.
        lines: Reads, and counts malformed lines.
    """
    files = [one.entities for one in sources if one.entities]
    if not files:
        return 0
    seen, reader = set[str](), EntityReader()
    with text_file(path) as stream:
        for file in files:
            for name, numbers in lines(file, reader):
                if name not in seen:
                    seen.add(name)
                    stream.write(f"{name}\t{numbers}\n")
    return len(seen)
