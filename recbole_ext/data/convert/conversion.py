"""Raw files to atomic files: read, filter, write, and say in a manifest what was done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.atomic import replacing_folder
from recbole_ext.data.convert.filters import Filters, apply, exact_duplicates
from recbole_ext.data.convert.interactions import Interactions, collect
from recbole_ext.data.convert.lines import Lines
from recbole_ext.data.convert.raw import Described, RawFormat
from recbole_ext.data.convert.settings import settings_text
from recbole_ext.data.convert.writing import LINKS, Side, write_interactions, write_side
from recbole_ext.locks import LOCK
from recbole_ext.types import UserError

MANIFEST = "conversion.json"


@dataclass(frozen=True)
class Step:
    """What was there after a step.

    Attributes:
        step: ``read``, or a filter with its value.
        interactions: How many.
        users: That have any.
        items: That have any.
    """

    step: str
    interactions: int
    users: int
    items: int


@dataclass
class Conversion:
    """What was done; the manifest.

    Attributes:
        format: Of the raw files.
        name: Of the dataset.
        version: Of this package.
        sources: The raw files.
        filters: What was asked for.
        steps: What was left after each.
        exact_duplicates: Interactions equal to another in all, before duplicates were left out.
        sides: ``item`` and ``user`` -> what was written of them.
        notes: What else was left out, and how often.
        files: What was written.
    """

    format: str
    name: str
    filters: dict[str, Any]
    version: str = __version__
    sources: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    exact_duplicates: int = 0
    sides: dict[str, Side] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def convert(
    raw: RawFormat, folder: Path, name: str, filters: Filters, overwrite: bool = False
) -> Conversion:
    """Write ``<name>.inter``, ``.item``, ``.user``, image links, settings and the manifest.

    All files appear together, or none does.

    Args:
        raw: The raw files.
        folder: The dataset's folder.
        name: Its name.
        filters: What is left out.
        overwrite: Whether files of an earlier conversion are replaced.

    Raises:
        UserError: The raw files cannot be read, nothing is left, or the folder has such files.
    """
    names = [f"{name}.{suffix}" for suffix in ("inter", "item", "user", "yaml")]
    names += [LINKS, MANIFEST]
    check_replaceable(folder, names, overwrite)
    with replacing_folder(folder, names) as place:
        return _convert(raw, place, folder, name, filters)


def check_replaceable(folder: Path, names: list[str], overwrite: bool) -> None:
    """Refuse a folder that has one of the files, where it is not to be replaced.

    Raises:
        UserError: It has.
    """
    there = [one for one in names if (folder / one).exists()]
    if there and not overwrite:
        raise UserError(
            f"{folder} has {there[0]} already; name another --out, or replace it with --overwrite"
        )


def write_manifest(place: Path, done: Any, lines: Lines) -> None:
    """Write what was done: ``done`` with what was read, what was left out, and all files."""
    done.sources, done.notes = lines.as_json(), dict(sorted(lines.notes.items()))
    done.files = sorted([MANIFEST, *(path.name for path in place.iterdir() if path.name != LOCK)])
    manifest = json.dumps(asdict(done), indent=2, ensure_ascii=False)
    (place / MANIFEST).write_text(manifest + "\n", encoding="utf-8")


def run_command(folder: Path, name: str, model: str = "SASRec") -> str:
    """Return the command that runs a model on the dataset."""
    program = f"python run_recbole_ext.py --model={model}"
    return f"{program} --dataset={shlex.quote(name)} --data_path={shlex.quote(str(folder.parent))}"


def _convert(raw: RawFormat, place: Path, folder: Path, name: str, filters: Filters) -> Conversion:
    lines, done = Lines(), Conversion(raw.name, name, asdict(filters))
    data = _filtered(raw, lines, filters, done)
    write_interactions(place / f"{name}.inter", data)
    if raw.items:
        links = place / LINKS if raw.has_links else None
        path = place / f"{name}.item"
        done.sides["item"] = _side(path, raw.item_columns, raw.read_items, data, lines, links)
    if raw.users:
        path = place / f"{name}.user"
        done.sides["user"] = _side(path, raw.user_columns, raw.read_users, data, lines)
    columns = raw.item_columns if raw.items else ()
    settings = settings_text(run_command(folder, name), columns)
    (place / f"{name}.yaml").write_text(settings, encoding="utf-8")
    write_manifest(place, done, lines)
    return done


def _filtered(raw: RawFormat, lines: Lines, filters: Filters, done: Conversion) -> Interactions:
    data = collect(raw.read_interactions(lines))
    if not len(data):
        raise UserError(f"{raw.interactions[0]} has no interactions; is it whole?")
    done.steps.append(_counted("read", data))
    done.exact_duplicates = exact_duplicates(data)
    for step, left in apply(data, filters):
        done.steps.append(_counted(step, left))
        data = left
        if not len(data):
            before = done.steps[-2].interactions
            raise UserError(
                f"{step} leaves none of {before} interactions; lower it, and nothing was written"
            )
    return data


def _counted(step: str, data: Interactions) -> Step:
    return Step(step, len(data), len(data.there("user")), len(data.there("item")))


def _side(
    path: Path,
    columns: tuple[str, ...],
    read: Callable[[Lines, set[str]], Iterator[Described]],
    data: Interactions,
    lines: Lines,
    links: Path | None = None,
) -> Side:
    tokens = data.there(path.suffix[1:])
    done = write_side(path, columns, read(lines, set(tokens)), tokens, links)
    if not done.described:
        raise UserError(
            f"{lines.files[-1].file} knows none of the {len(tokens)} {path.suffix[1:]}s of the "
            "interactions; is it of another category or version? leave it out, or replace it"
        )
    return done
