"""Joins comparisons that ran apart, on a core or a machine each, and writes their report.

python -m benchmarks.join docs/results/ml-100k runs/duorec runs/bert4rec

Only what a report reads is copied: no weights. What the first folder holds stays, and what is
finished anywhere takes the place of what is not. Runs of unequal settings are refused as in any
comparison.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.earlier import Row
from recbole_ext.compare.report import write_report
from recbole_ext.run_folder import PLAN, write_text
from recbole_ext.types import UserError

READ = ("config.yaml", "metrics.jsonl", "per_user.parquet", "result.json")
"""What a report reads of a run."""


def join(out: Path, places: list[Path]) -> list[Row]:
    """Copy the finished runs of some comparisons to one folder, and return its plan.

    Raises:
        UserError: A place holds no comparison.
    """
    found: dict[tuple[str, str, int], Row] = {}
    for place in ([out] if (out / PLAN).is_file() else []) + places:
        for data in (place / "data").glob("*.json") if place != out else ():
            (out / "data").mkdir(parents=True, exist_ok=True)
            shutil.copy(data, out / "data" / data.name)
        for row in read_plan(place):
            run, key = place / row["folder"], (row["dataset"], row["name"], row["seed"])
            is_done = all((run / name).is_file() for name in READ)
            if is_done or key not in found:
                found[key] = row
            if is_done and place != out:
                (out / row["folder"]).mkdir(parents=True, exist_ok=True)
                for name in READ:
                    shutil.copy(run / name, out / row["folder"] / name)
    names = list(dict.fromkeys(name for _, name, _ in found))  # as the folders were given
    keys = sorted(found, key=lambda key: (key[0], key[2], names.index(key[1])))
    return [found[key] for key in keys]


def main(arguments: list[str]) -> int:
    """Join the folders after the first in it."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out, *places = map(Path, arguments)
    try:
        rows = join(out, places)
        write_text(out / PLAN, json.dumps(rows, indent=2) + "\n")
        write_report(out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
