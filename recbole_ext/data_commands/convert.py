"""``recbole-ext convert <family>``: raw files to atomic files, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.arguments import call_or_help
from recbole_ext.data.convert.conversion import Conversion, convert, run_command
from recbole_ext.data.convert.filters import DUPLICATES, HOW, Filters
from recbole_ext.data.convert.registry import families, find_raw
from recbole_ext.data.convert.writing import LINKS
from recbole_ext.data_commands import mind
from recbole_ext.data_commands.reporting import folder_of, malformed
from recbole_ext.feature_commands.options import at_least, one_of
from recbole_ext.types import UserError, suggest


@dataclass(frozen=True)
class Filtering(Filters):
    """What is left out; checked."""

    def __post_init__(self) -> None:
        at_least(0, min_uc=self.min_uc, min_sc=self.min_sc)
        one_of("filter", self.filter, HOW)
        one_of("duplicates", self.duplicates, DUPLICATES)
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise UserError(f"--min_rating takes a number, not {self.min_rating}")
        if self.filter == "once" and not (self.min_uc or self.min_sc):
            raise UserError(
                "--filter=once is for --min_uc and --min_sc, and would do nothing without; give "
                "one of them, or leave it out"
            )


def run(arguments: list[str]) -> int:
    """Do ``recbole-ext convert <family> --key=value ...``."""
    family, *rest = arguments or [""]
    known = commands()
    if family not in known:
        hint = suggest(family, known) if family else ""
        raise UserError(f"convert: one of {', '.join(known)} is meant, not '{family}'{hint}")
    command = f"recbole-ext convert {family}"
    return call_or_help(known[family], rest, command)


def commands() -> dict[str, Callable[..., None]]:
    """Return family -> its function; one whose data are no ratings by users has its own here."""
    return {**{family: command_of(family) for family in families()}, "mind": mind.convert}


def command_of(family: str) -> Callable[..., None]:
    """Return the function of a family of ratings by users."""

    def convert_raw(
        filtering: Filtering, source: str, out: str, name: str = "", overwrite: bool = False
    ) -> None:
        """Convert raw files, as they are handed out, to RecBole's atomic files.

        Args:
            filtering: What is left out.
            source: Folder of the raw files, or, where it has several sets, a set's interactions.
            out: Folder of the dataset, which has its name.
            name: Of the dataset, where out is the folder of all datasets: it goes to out/name.
            overwrite: Replace the files of an earlier conversion.
        """
        if not source:
            raise UserError("--source is empty; name the folder with the raw files")
        folder = folder_of(out, name)
        raw = find_raw(family, Path(source))
        try:
            done = convert(raw, folder, folder.name, filtering, overwrite)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("nothing was written: give it once more") from None
        read = [path for path in (*raw.interactions, raw.items, raw.users) if path]
        print(f"{raw.name}: {', '.join(map(str, read))}")
        if raw.items is None:
            print(f"  nothing about items, so no .item file; looked for: {raw.looked_for}")
        print("\n".join(report(folder, done)))

    return convert_raw


def report(folder: Path, done: Conversion) -> list[str]:
    """Return what was done, and what to do next, in lines."""
    width = max(len(step.step) for step in done.steps)
    said = [
        f"  {step.step:<{width}}  {step.interactions:>12,} interactions  {step.users:>11,} users"
        f"  {step.items:>10,} items"
        for step in done.steps
    ]
    if done.exact_duplicates:
        said.append(f"  {done.exact_duplicates:,} interactions were there twice, equal in all")
    said += malformed(done.sources)
    said += [f"  {n:,} {what} were left empty" for what, n in done.notes.items()]
    for of, side in done.sides.items():
        repeated = f"; {side.repeated:,} further rows about them" if side.repeated else ""
        said.append(f"  {side.described:,} of {side.rows:,} {of}s are described{repeated}")
    said.append(f"wrote {', '.join(done.files)} in {folder}")
    said.append(f"run: {run_command(folder, done.name)}")
    if "item" in done.sides and done.sides["item"].links:
        place = folder / "images"
        said.append(f"pictures: recbole-ext images --links={folder / LINKS} --out={place}")
    return said
