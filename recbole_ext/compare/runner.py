"""Does the runs of a comparison, one child process each, and keeps those that are done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recbole_ext.compare.check import Wanted
from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.plan import Planned
from recbole_ext.run_folder import write_text
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
    _write_plan(runs, output_dir, failures)  # a report before the end says what is missing
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
            if failure:
                failures[one.folder.name] = failure
            left = sum(not is_done(later.folder) for later in runs[number:])
            eta = sum(spent) / len(spent) * left
            what = f"failed: {failure}" if failure else _valid(one.folder)
            say(f"{head}: {spent[-1]:.0f} s, {what}, about {eta:.0f} s to go")
        _write_plan(runs, output_dir, failures)
    return failures


def is_done(folder: Path) -> bool:
    """Return whether a run has its result; settings and data are in the folder's name.

    With a damaged one it is not done: it is taken up where it ended, and writes it anew.
    """
    try:
        return "best_valid" in json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _make_folder(place: Path) -> None:
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
    with open(log, "w", encoding="utf-8") as stream, _sigterm_as_exit():
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


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM pass through ``finally`` and ``except``, as Ctrl-C does."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _job(one: Planned) -> Job:
    return {
        "kind": "extend" if one.extends else "run",
        "model": one.model,
        "dataset": one.dataset,
        "settings": one.settings,
        "overrides": list(one.overrides),
        "folder": str(one.folder),
        "needs": [str(folder) for folder in one.needs],
    }


def _valid(folder: Path) -> str:
    best = json.loads((folder / "result.json").read_text(encoding="utf-8"))["best_valid"]
    name = str(read_yaml(folder / "config.yaml")["valid_metric"]).lower()
    return f"validation {name} {best[name]:.4f}" if name in best else "no validation"


def _write_plan(runs: Sequence[Planned], output_dir: Path, failures: dict[str, str]) -> None:
    """Write what there is to report: these runs, and others that the folder had before."""
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "model": one.model,
            "dataset": one.dataset,
            "seed": one.seed,
            "control_of": one.control_of,
            "folder": f"runs/{one.folder.name}",
            "failure": failures.get(one.folder.name),
        }
        for one in runs
    ]
    mine = {_key(row) for row in rows}
    if (output_dir / "plan.json").is_file():
        rows += [row for row in read_plan(output_dir) if _key(row) not in mine]
    write_text(output_dir / "plan.json", json.dumps(rows, indent=2) + "\n")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["dataset"], row["name"], row["seed"]
