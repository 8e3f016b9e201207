"""MIND to atomic files: impressions split by time, histories once each, what is known of news."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.atomic import replacing_folder
from recbole_ext.data.convert.conversion import (
    MANIFEST,
    check_replaceable,
    run_command,
    write_manifest,
)
from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.mind import NEWS_COLUMNS, ImpressionReader, read_news
from recbole_ext.data.convert.mind_entities import write_entity_vectors
from recbole_ext.data.convert.mind_files import PARTS, Source, Split, news_files, split_of
from recbole_ext.data.convert.mind_writing import ImpressionWriter, Part, Written
from recbole_ext.data.convert.raw import Described
from recbole_ext.data.convert.writing import Side, write_side
from recbole_ext.data.news_entities import ENTITY_VECTORS
from recbole_ext.paths import data_folder
from recbole_ext.types import UserError

MODEL = "DeepFM"
"""A model that runs on the files as they are, in the command that is named."""
NEWS_MODEL = "NRMSDocVec"
"""One of the family that reads histories, which takes a stored feature too."""


@dataclass
class MindConversion:
    """What was done; the manifest.

    Attributes:
        name: Of the dataset.
        max_history: Newest clicks of a history that were kept.
        split: The first day of validation and of the test.
        parts: What each part has.
        users: Who was shown something.
        histories: Rows of the ``.user`` file.
        cut_histories: Those that were longer than ``max_history``.
        news: That were shown or clicked before.
        shown_news: That were shown.
        news_with_text: Of ``news``, those of which a ``news.tsv`` says something.
        rows_without_text: Rows that show news of which no ``news.tsv`` says anything.
        sides: ``item`` -> what was written of news, with those that nobody was shown: they are
            what a model of texts can recommend next.
        entity_vectors: Entities of which MIND has a vector; 0 without its file.
        format: Of the raw files.
        version: Of this package.
        sources: The raw files.
        notes: What else was left out, and how often.
        files: What was written.
    """

    name: str
    max_history: int
    split: dict[str, str]
    parts: dict[str, Part]
    users: int
    histories: int
    cut_histories: int
    news: int
    shown_news: int
    news_with_text: int
    rows_without_text: int
    sides: dict[str, Side]
    entity_vectors: int = 0
    format: str = "mind"
    version: str = __version__
    sources: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def convert_mind(
    sources: list[Source], folder: Path, name: str, max_history: int = 50, overwrite: bool = False
) -> MindConversion:
    """Write ``<name>.<part>.inter``, ``.user``, ``.item``, the settings and the manifest.

    All files appear together, or none does.

    Args:
        sources: The folder of training, and that of the test.
        folder: The dataset's folder.
        name: Its name.
        max_history: Newest clicks of a history that are kept.
        overwrite: Whether files of an earlier conversion are replaced.

    Raises:
        UserError: The raw files cannot be read or divided, or the folder has such files.
    """
    names = [f"{name}.{part}.inter" for part in PARTS]
    names += [f"{name}.{suffix}" for suffix in ("user", "item", "yaml")]
    names += [f"news_on_{name}.yaml", ENTITY_VECTORS, MANIFEST]
    check_replaceable(folder, names, overwrite)
    split = split_of(sources)
    with replacing_folder(folder, names) as place:
        lines = Lines()
        with ImpressionWriter(place, name, max_history) as writer:
            for source in sources:
                writer.write(source, split, lines(source.behaviors, ImpressionReader()))
        _check_parts(writer.done, sources)
        n_vectors = write_entity_vectors(place / ENTITY_VECTORS, sources, lines)
        done = _described(place, name, max_history, split, writer.done, lines, sources)
        done.entity_vectors = n_vectors
        _write_settings(place, folder, name)
        write_manifest(place, done, lines)
    return done


def _write_settings(place: Path, folder: Path, name: str) -> None:
    """Write the settings beside the data: those of ``mind``, under the commands of this dataset."""
    news = f"{run_command(folder, name, NEWS_MODEL)} --text_feature=<name>"
    for path, new, command in (
        (data_folder("dataset_configs") / "mind.yaml", name, run_command(folder, name, MODEL)),
        (data_folder("properties") / "family" / "news_on_mind.yaml", f"news_on_{name}", news),
    ):
        settings = path.read_text(encoding="utf-8").partition("\n")[2]
        (place / f"{new}.yaml").write_text(f"# {command}\n{settings}", encoding="utf-8")


def _check_parts(written: Written, sources: list[Source]) -> None:
    valid, test = written.parts["valid"], written.parts["test"]
    if test.first is None or valid.last is None:
        raise UserError(f"{sources[-1].behaviors} has no impressions; is it whole?")
    if test.first <= valid.last:
        raise UserError(
            f"{sources[-1].behaviors} has an impression before the last one of "
            f"{sources[0].behaviors}: the test would be of what was learned; is --source the "
            "folder of training, and --dev the later one?"
        )


def _described(
    place: Path,
    name: str,
    max_history: int,
    split: Split,
    written: Written,
    lines: Lines,
    sources: list[Source],
) -> MindConversion:
    """Write what is known of the news, and count."""
    rows_of, with_text = written.rows_of, set[str]()

    def rows() -> Iterator[Described]:
        for path in news_files(sources):
            for row in lines(path, lambda line: read_news(line, lines.notes)):
                with_text.add(row.token)
                yield row

    path = place / f"{name}.item"
    side = write_side(path, NEWS_COLUMNS, rows(), list(rows_of), others=True)
    if not with_text & rows_of.keys():
        raise UserError(
            f"{lines.files[-1].file} knows none of the {len(rows_of)} news of the impressions; is "
            "it of another version of MIND?"
        )
    return MindConversion(
        name,
        max_history,
        split.as_json(),
        written.parts,
        len(written.users),
        written.n_histories,
        written.cut_histories,
        len(rows_of),
        sum(rows > 0 for rows in rows_of.values()),
        len(with_text & rows_of.keys()),
        sum(rows for item, rows in rows_of.items() if item not in with_text),
        {"item": side},
    )
