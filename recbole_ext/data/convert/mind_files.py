"""Where MIND's files are, and which of their impressions are for training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.mind import ImpressionReader
from recbole_ext.data.news_entities import ENTITY_VECTORS
from recbole_ext.types import UserError

DAY = 86_400
SOURCES = ("train", "dev")
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Source:
    """A folder of MIND's.

    Attributes:
        name: ``train`` or ``dev``.
        behaviors: Its impressions.
        news: What is known of news, ``None`` where the folder has none.
        entities: Vectors of entities, the same.
    """

    name: str
    behaviors: Path
    news: Path | None
    entities: Path | None = None


@dataclass(frozen=True)
class Split:
    """When validation and test begin; impressions stay whole.

    Attributes:
        valid_from: Seconds since 1970.
        test_from: The same, ``None`` where the folder ``dev`` is the test.
    """

    valid_from: int
    test_from: int | None

    def part(self, source: Source, time: int) -> str:
        """Return ``train``, ``valid`` or ``test`` for an impression."""
        if source.name == "dev" or (self.test_from is not None and time >= self.test_from):
            return "test"
        return "valid" if time >= self.valid_from else "train"

    def as_json(self) -> dict[str, str]:
        """Return the first day of validation and of the test."""
        test = "dev" if self.test_from is None else day_of(self.test_from)
        return {"valid_from": day_of(self.valid_from), "test_from": test}


def find_sources(source: Path, dev: Path | None = None) -> list[Source]:
    """Return the folder of training, and that of the test where there is one.

    Args:
        source: Has ``behaviors.tsv``, or folders whose names end in ``train`` and ``dev`` with it.
        dev: The folder of the test, where ``source`` is that of training.

    Raises:
        UserError: A folder has no impressions, or none has news.
    """
    try:
        found = _found(source, dev)
    except OSError as error:
        place = error.filename or source
        raise UserError(f"cannot read {place}: {error.strerror}; is it yours to read?") from None
    if not any(one.news for one in found):
        raise UserError(
            f"{found[0].behaviors.parent} has no news.tsv; put it beside {found[0].behaviors.name}"
        )
    return found


def split_of(sources: list[Source]) -> Split:
    """Return the split by time: the last days of the training folder are held out.

    With a folder ``dev`` its last day is validation; alone, its last two are validation and test.

    Raises:
        UserError: There are too few days.
    """
    train = sources[0]
    rows = Lines()(train.behaviors, ImpressionReader())
    days = sorted({row.time // DAY for row in rows})
    if not days:
        raise UserError(f"{train.behaviors} has no impressions; is it whole?")
    n_held_out = 3 - len(sources)
    if len(days) <= n_held_out:
        raise UserError(
            f"{train.behaviors} has impressions of {len(days)} days, and {n_held_out} of them are "
            f"held out by time: it takes {n_held_out + 1} or more"
            + ("" if len(sources) > 1 else ", or the folder of the test as --dev")
        )
    if len(sources) > 1:
        return Split(days[-1] * DAY, None)
    return Split(days[-2] * DAY, days[-1] * DAY)


def day_of(time: int) -> str:
    """Return the day of a time, as 2019-11-15."""
    return datetime.fromtimestamp(time, tz=timezone.utc).date().isoformat()


def news_files(sources: list[Source]) -> Iterator[Path]:
    """Yield the files of news."""
    return (one.news for one in sources if one.news)


def _found(source: Path, dev: Path | None) -> list[Source]:
    for key, folder in (("source", source), ("dev", dev)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"--{key}: there is no folder {folder}; name one with behaviors.tsv")
    folders = [source] if dev is None else [source, dev]
    if dev is None and _file(source, "behaviors.tsv") is None:
        inner = [one for name in SOURCES if (one := _inner(source, name))]
        folders = inner if len(inner) == len(SOURCES) else folders
    return [_source(name, one) for name, one in zip(SOURCES, folders, strict=False)]


def _source(name: str, folder: Path) -> Source:
    behaviors = _file(folder, "behaviors.tsv")
    if behaviors is None:
        raise UserError(
            f"{folder} has no behaviors.tsv; name the folder that a zip of MIND was unpacked to, "
            "as MINDsmall_train, or the one that has both MINDsmall_train and MINDsmall_dev"
        )
    return Source(name, behaviors, _file(folder, "news.tsv"), _file(folder, ENTITY_VECTORS))


def _file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _inner(folder: Path, name: str) -> Path | None:
    """Return the one folder in it whose name ends so and that has impressions."""
    found = [
        one
        for one in folder.iterdir()
        if one.is_dir() and one.name.endswith(name) and _file(one, "behaviors.tsv")
    ]
    return found[0] if len(found) == 1 else None
