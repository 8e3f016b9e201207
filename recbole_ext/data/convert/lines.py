"""Streams the lines of raw files, plain or gzip; notes what each file is and which lines are bad.

No file is held: a line at a time is decoded and read, and the digest is of the bytes that pass.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tqdm import tqdm

from recbole_ext.types import UserError

T = TypeVar("T")
SHOWN = 5
"""Malformed lines of a file that are named."""
BLOCK = 1 << 20
LONGEST = 8 << 20
"""Bytes of a line that is read; a longer one is none, and might be all that memory holds."""
BOM = b"\xef\xbb\xbf"
_BAD = (ValueError, KeyError, TypeError, OverflowError)
"""What reading a malformed line raises."""


@dataclass
class RawFile:
    """What was read of a file.

    Attributes:
        file: Its name.
        bytes: Its size.
        sha256: Of its bytes, compressed as they are.
        lines: Lines with something in them; a head line is none.
        malformed: Lines that were left out.
        first_malformed: Number and reason of the first of them.
    """

    file: str
    bytes: int = 0
    sha256: str = ""
    lines: int = 0
    malformed: int = 0
    first_malformed: list[dict[str, Any]] = field(default_factory=list)


class Lines:
    """Reads files line by line, and remembers what they were.

    Attributes:
        files: What was read, in order.
        notes: How often something else was left out, by what it was.
    """

    def __init__(self) -> None:
        self.files: list[RawFile] = []
        self.notes: Counter[str] = Counter()

    def __call__(
        self, path: Path, parse: Callable[[str], T], encoding: str = "utf-8", head: str = ""
    ) -> Iterator[T]:
        """Yield what ``parse`` makes of each line; a line at which it fails is counted.

        Args:
            path: Of the file; ``.gz`` is unpacked on the way.
            parse: Raises ``ValueError`` and the like at a malformed line.
            encoding: Of the text; a line that is none is malformed.
            head: What a first line that names columns begins with; empty where there is none.

        Raises:
            UserError: The file cannot be read to its end, its first line names other columns, or
                all of its lines are malformed.
        """
        seen = RawFile(path.name)
        self.files.append(seen)
        with _opened(path, seen) as stream:
            for number, line in enumerate(_bounded(stream), 1):
                line = line.removeprefix(BOM) if number == 1 else line
                if head and number == 1:
                    _check_head(path, line, head)
                    continue
                if not line.strip():
                    continue
                seen.lines += 1
                try:
                    found = parse(_decoded(line, encoding))
                except _BAD as error:
                    seen.malformed += 1
                    if seen.malformed <= SHOWN:
                        seen.first_malformed.append({"line": number, "reason": _reason(error)})
                    continue
                yield found
        if seen.lines and seen.malformed == seen.lines:
            first = seen.first_malformed[0]
            raise UserError(
                f"{path}: none of its {seen.lines} lines can be read (line {first['line']}: "
                f"{first['reason']}); is it another kind of file, or damaged?"
            )

    def as_json(self) -> list[dict[str, Any]]:
        """Return the files for a manifest."""
        return [asdict(one) for one in self.files]


def first_lines(path: Path, n: int, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the first lines of a file, with what is no text replaced."""
    with _opened(path) as stream:
        for line in islice(_bounded(stream), n):
            yield line.removeprefix(BOM).decode(encoding, "replace").strip()


def _bounded(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines; of one that is too long its beginning, which is too long as well."""
    while line := stream.readline(LONGEST + 1):
        rest = line
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST + 1)
        yield line


def _decoded(line: bytes, encoding: str) -> str:
    if len(line) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    return line.decode(encoding).rstrip("\r\n")


def _check_head(path: Path, line: bytes, head: str) -> None:
    """Refuse columns in another order, and a first line that is one of the data."""
    found = line.decode("utf-8", "replace").strip()
    if not found.startswith(head):
        raise UserError(
            f"{path}: its first line is {found[:80]!r}, not {head}; put that line first, and the "
            "columns in this order"
        )


@contextmanager
def _opened(path: Path, seen: RawFile | None = None) -> Iterator[BinaryIO]:
    """Open a file for its lines; ``seen`` learns its size and digest when all of it was read."""
    digest = hashlib.sha256()
    try:
        with (
            open(path, "rb", buffering=0) as raw,
            tqdm(
                total=path.stat().st_size,
                desc=path.name,
                unit="B",
                unit_scale=True,
                disable=None if seen else True,  # None: no bar where nobody sees it
            ) as bar,
        ):
            watched = io.BufferedReader(_Watched(raw, digest, bar), BLOCK)
            if path.suffix == ".gz":
                with gzip.open(watched) as unpacked:
                    yield io.BufferedReader(unpacked, BLOCK)  # type: ignore[type-var]
            else:
                yield watched
            if seen:
                seen.bytes, seen.sha256 = raw.tell(), digest.hexdigest()
    except EOFError:
        raise UserError(f"{path} ends in the middle; download it once more") from None
    except (OSError, zlib.error) as error:
        words = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {words}; is it whole, and yours to read?") from None


class _Watched(io.RawIOBase):
    """A file whose blocks pass by a digest and a progress bar."""

    def __init__(self, raw: io.RawIOBase, digest: Any, bar: Any) -> None:
        self._raw, self._digest, self._bar = raw, digest, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._raw.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:n])
        self._bar.update(n)
        return n


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no {error.encoding} text"
    return str(error)[:120]
