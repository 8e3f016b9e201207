"""The process of one job of a comparison, which comes as a line of JSON on stdin."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from recbole_ext.compare.check import check_wanted, configs_of
from recbole_ext.compare.controls import mix_of
from recbole_ext.compare.split import read_split, write_split
from recbole_ext.config import Config
from recbole_ext.quick_start import run
from recbole_ext.resume import place_of
from recbole_ext.trainer.run_log import RunLog
from recbole_ext.types import UserError

_NOT_COPIED = ("result.json", "per_user.parquet", "train.log", "tensorboard", ".lock")


def do(job: dict[str, Any]) -> None:
    """Do a job: ``run`` a model, ``extend`` a finished run, or ``read`` a dataset.

    With the dataset the settings of its runs are checked. A run that was begun before is continued,
    where and how is said now.
    """
    folder = Path(job["folder"])
    if job["kind"] == "read":
        configs = configs_of(job["dataset"], job["wanted"])
        split = read_split(job["dataset"], next(iter(configs.values())).resolved)
        check_wanted(configs, len(split.popularity))
        write_split(folder, split)
    elif job["kind"] == "extend":
        source, like = map(Path, job["needs"])
        _extend(folder, source, like, _place_of(job))
    elif (folder / "config.yaml").is_file():
        run(resume=folder, overrides=_place_of(job))
    else:
        settings = {**job["settings"], "output_dir": str(folder)}
        if job["mixes_alike"]:
            settings |= mix_of(Path(job["needs"][-1]))
        run(job["model"], job["dataset"], None, settings, job["overrides"])


def _place_of(job: dict[str, Any]) -> list[str]:
    """Return what a run that goes on may take anew: where its data and its memory are, and how."""
    config = Config(job["model"], job["dataset"], None, job["settings"], job["overrides"])
    return place_of(config.resolved)


def _extend(folder: Path, source: Path, like: Path, place: list[str]) -> None:
    """Let a copy of a finished run go on for as many epochs as ``like`` has trained.

    Nothing stops it early, and its test is of its own best epoch, an earlier one perhaps.

    Raises:
        UserError: A callback did stop it, or the run that it goes on from.
    """
    if not folder.is_dir():
        begun = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(begun, ignore_errors=True)
        shutil.copytree(source, begun, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        begun.rename(folder)  # at once: half a copy must not be resumed
    n_epochs = len(RunLog(source).read()) + len(RunLog(like).read())
    longer = [f"--epochs={n_epochs}", f"--stopping_step={n_epochs}"]
    found = run(resume=folder, overrides=[*place, *longer])
    if found["n_epochs"] < n_epochs:
        (folder / "result.json").unlink()  # with one it counts as done
        raise UserError(
            f"it ended after {found['n_epochs']} of {n_epochs} epochs, for a callback stopped it "
            f"or the run that it goes on from, {source.name}; leave it out, or --controls"
        )


def _end_with_parent() -> None:
    """End when stdin ends: the parent holds its other end, however that is killed."""
    os.read(0, 1)  # no buffered file: a thread that waits in one may not be left at the exit
    os._exit(1)  # a kill at any moment leaves a run that can be continued


def main() -> int:
    """Do the job; bad input is one sentence, the last line of the log."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        job = json.loads(stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        do(job)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
