"""``recbole-ext convert mind``: MIND to atomic files, and what to do next."""

from __future__ import annotations

from pathlib import Path

from recbole_ext.data.convert.conversion import run_command
from recbole_ext.data.convert.mind_conversion import MODEL, MindConversion, convert_mind
from recbole_ext.data.convert.mind_files import find_sources
from recbole_ext.data_commands.reporting import folder_of, malformed
from recbole_ext.feature_commands.options import at_least
from recbole_ext.types import UserError


def convert(
    source: str,
    out: str,
    dev: str = "",
    name: str = "",
    max_history: int = 50,
    overwrite: bool = False,
) -> None:
    """Convert MIND (behaviors.tsv and news.tsv) to RecBole's atomic files, split by time.

    Args:
        source: Folder of training, as MINDsmall_train, or the one that has it and MINDsmall_dev.
        out: Folder of the dataset, which has its name.
        dev: Folder of the test, as MINDsmall_dev; without, the last day of source is the test.
        name: Of the dataset, where out is the folder of all datasets: it goes to out/name.
        max_history: Newest clicks that are kept of a user's history.
        overwrite: Replace the files of an earlier conversion.
    """
    if not source:
        raise UserError("--source is empty; name the folder with behaviors.tsv")
    at_least(1, max_history=max_history)
    folder = folder_of(out, name)
    sources = find_sources(Path(source), Path(dev) if dev else None)
    try:
        done = convert_mind(sources, folder, folder.name, max_history, overwrite)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written: give it once more") from None
    read = [str(path) for one in sources for path in (one.behaviors, one.news) if path]
    print(f"mind: {', '.join(read)}")
    print("\n".join(report(folder, done)))


def report(folder: Path, done: MindConversion) -> list[str]:
    """Return what was done, and what to do next, in lines."""
    said = []
    for name, part in done.parts.items():
        begin = done.split.get(f"{name}_from", "")
        since = f"  from {begin}" if begin and begin != "dev" else ""
        said.append(
            f"  {name:<5}  {part.impressions:>9,} impressions  {part.clicks:>10,} clicks  "
            f"{part.non_clicks:>11,} non-clicks{since}"
        )
    one_class = sum(part.one_class for part in done.parts.values())
    if one_class:
        said.append(
            f"  {one_class:,} impressions have clicks alone, or none: no metric counts them"
        )
    empty = sum(part.empty_histories for part in done.parts.values())
    said.append(
        f"  {done.users:,} users with {done.histories:,} histories ({done.cut_histories:,} cut to "
        f"their last {done.max_history}); {empty:,} impressions have an empty one"
    )
    said += malformed(done.sources)
    said += [f"  {n:,} {what} were left empty" for what, n in done.notes.items()]
    said += texts(done)
    said.append(f"wrote {', '.join(done.files)} in {folder}")
    said.append(f"run: {run_command(folder, done.name, MODEL)}")
    return said


def texts(done: MindConversion) -> list[str]:
    """Return of how many news something is known, and what the others are to the rows."""
    side = done.sides["item"]
    repeated = f"; {side.repeated:,} further rows about them" if side.repeated else ""
    share = 100 * side.described / side.rows
    said = [f"  {side.described:,} of {side.rows:,} news have a text ({share:.2f} %){repeated}"]
    if unseen := side.described - done.news_with_text:
        said.append(f"  {unseen:,} of these are in no impression and no history, and are kept")
    if without := done.news - done.news_with_text:
        rows = sum(part.clicks + part.non_clicks for part in done.parts.values())
        said.append(
            f"  {without:,} news without a text are kept: {done.rows_without_text:,} of {rows:,} "
            "rows show one"
        )
    if done.entity_vectors:
        said.append(f"  {done.entity_vectors:,} vectors of entities")
    return said
