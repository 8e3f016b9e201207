"""Does the runs of a comparison, one child process each, and keeps those that are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recbole_ext.compare.check import Wanted
from recbole_ext.compare.earlier import earlier_rows
from recbole_ext.compare.plan import Planned
from recbole_ext.locks import sole_use
from recbole_ext.run_folder import PLAN, write_text
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError

Job = dict[str, Any]
GOES_ON = "give the same command once more, and the comparison goes on"


def run_all(
    runs: Sequence[Planned],
    output_dir: Path,
    say: Callable[[str], None] = print,
    work: Callable[[Job, Path], str | None] | None = None,
) -> dict[str, str]:
    """Do what is not done yet; return the failures, run folder's name -> sentence.

    Args:
        runs: The plan.
        output_dir: Folder of the comparison.
        say: Takes a line per run.
        work: Does a job, logs into a file, and returns a failure; :func:`in_child` by default,
            which gives each run its own peak memory, seconds and end.
    """
    _make_folder(output_dir)
    failures: dict[str, str] = {}
    spent: list[float] = []
    gone = _write_plan(runs, output_dir, failures)  # a report before the end says what is missing
    if gone:
        say(_gone(gone))
    for number, one in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {one.name} on {one.dataset}, seed {one.seed}"
        unmet = [folder.name for folder in one.needs if not is_done(folder)]
        if is_done(one.folder):
            say(f"{head}: done before, {_valid(one.folder)}")
        elif unmet:
            failures[one.folder.name] = f"it needs {' and '.join(unmet)}, which failed"
            say(f"{head}: failed: {failures[one.folder.name]}")
        else:
            begin = time.monotonic()
            failure = (work or in_child)(_job(one), one.folder.with_name(f"{one.folder.name}.log"))
            spent.append(time.monotonic() - begin)
            if not failure and not is_done(one.folder):
                failure = f"{one.model} leaves no ranks of single users; leave it out of --models"
            if failure:
                failures[one.folder.name] = failure
            left = sum(not is_done(later.folder) for later in runs[number:])
            eta = sum(spent) / len(spent) * left
            what = f"failed: {failure}" if failure else _valid(one.folder)
            say(f"{head}: {spent[-1]:.0f} s, {what}, about {eta:.0f} s to go")
        _write_plan(runs, output_dir, failures)
    return failures


def is_done(folder: Path) -> bool:
    """Return whether a run has its result and ranks; settings and data are in the folder's name.

    With damaged ones it is not done: it is taken up where it ended, and writes them anew.
    """
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    is_whole = isinstance(result, dict) and isinstance(result.get("best_valid"), dict)
    return is_whole and (folder / "per_user.parquet").is_file()


@contextmanager
def sole_command(output_dir: Path) -> Iterator[None]:
    """Hold a comparison's folder: two commands would lose each other's rows and logs.

    Raises:
        UserError: Another command is at work in it, or it cannot be written.
    """
    _make_folder(output_dir)
    with sole_use(output_dir, 0, "the comparison's folder"):
        yield


def _make_folder(place: Path) -> None:
    if (place / "config.yaml").is_file():
        raise UserError(f"--output_dir={place} holds a run (config.yaml); name another folder")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f"--output_dir={place}: a comparison cannot be written there ({error.strerror}); name "
            "a folder"
        ) from None


def split_file(output_dir: Path, dataset: str) -> Path:
    """Return where a comparison keeps what it knows of a dataset."""
    return output_dir / "data" / f"{dataset}.json"


def read_dataset(
    dataset: str,
    wanted: Sequence[Wanted],
    output_dir: Path,
    work: Callable[[Job, Path], str | None] | None = None,
) -> str:
    """Read a dataset anew, keep what the report needs of it, and return its fingerprint.

    Args:
        dataset: Dataset.
        wanted: Its runs, whose settings are checked against the data; their split is one.
        output_dir: Folder of the comparison.
        work: See :func:`run_all`.

    Raises:
        UserError: It cannot be read, or a run's settings do not fit it.
    """
    _make_folder(output_dir)
    path = split_file(output_dir, dataset)
    job = {
        "kind": "read",
        "dataset": dataset,
        "folder": str(path),
        "wanted": wanted,
    }
    failure = (work or in_child)(job, path.with_suffix(".log"))
    if failure:
        raise UserError(f"dataset '{dataset}': {failure}")
    return json.loads(path.read_text(encoding="utf-8"))["fingerprint"]


def in_child(job: Job, log: Path) -> str | None:
    """Do a job in a process of its own, which ends with this one; return its failure."""
    log.parent.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(log, "w", encoding="utf-8") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "recbole_ext.compare.child"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert child.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it died: its exit code and its log say of what
                child.stdin.write(json.dumps(job, default=str).encode() + b"\n")
                child.stdin.flush()  # and left open: its end is the child's
            child.wait()
        except BaseException as stop:
            child.kill()  # a kill at any moment leaves a run that can be continued
            child.wait()
            if isinstance(stop, KeyboardInterrupt):
                stop.args = (GOES_ON,)
            raise
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
    if child.returncode == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} (exit code {child.returncode}, see {log.name})"


def _job(one: Planned) -> Job:
    return {
        "kind": "extend" if one.extends else "run",
        "model": one.model,
        "dataset": one.dataset,
        "settings": one.settings,
        "overrides": list(one.overrides),
        "folder": str(one.folder),
        "needs": [str(folder) for folder in one.needs],
        "mixes_alike": one.mixes_alike,
    }


def _valid(folder: Path) -> str:
    best = json.loads((folder / "result.json").read_text(encoding="utf-8"))["best_valid"]
    name = str(read_yaml(folder / "config.yaml")["valid_metric"]).lower()
    if name not in best:
        return "no validation"
    return f"validation {name} " + ("-" if best[name] is None else f"{best[name]:.4f}")


def _write_plan(
    runs: Sequence[Planned], output_dir: Path, failures: dict[str, str]
) -> list[dict[str, Any]]:
    """Write what there is to report, with what stays from before; return the rows that do not."""
    rows = [one.row(failures.get(one.folder.name)) for one in runs]
    stay, gone = earlier_rows(output_dir, rows)
    write_text(output_dir / PLAN, json.dumps([*rows, *stay], indent=2) + "\n")
    return gone


def _gone(rows: Sequence[dict[str, Any]]) -> str:
    names = dict.fromkeys(f"{row['name']} on {row['dataset']}, seed {row['seed']}" for row in rows)
    return (
        "no longer in the report, for the settings, data or version of its name are others now or "
        f"are not known (the folders stay): {'; '.join(names)}"
    )
