"""Does the runs of a comparison, one child process each, and keeps those that are done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from recbole_ext.compare.plan import Planned
from recbole_ext.run_folder import write_text


def run_all(
    runs: Sequence[Planned], output_dir: Path, say: Callable[[str], None] = print
) -> dict[str, str]:
    """Do what is not done yet; return the failures, run folder's name -> sentence.

    A process of its own gives each run its own peak memory, seconds and end.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    spent: list[float] = []
    for number, one in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {one.model} on {one.dataset}, seed {one.seed}"
        if is_done(one.folder):
            say(f"{head}: done before, {_valid(one.folder)}")
        elif one.after and not is_done(one.after):
            failures[one.folder.name] = f"its warm start {one.after.name} has failed"
            say(f"{head}: failed: {failures[one.folder.name]}")
        else:
            begin = time.monotonic()
            failure = _run(one)
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
    """Return whether a run has its result; its settings are in the folder's name."""
    return (folder / "result.json").is_file()


def _run(one: Planned) -> str | None:
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    log = one.folder.with_name(f"{one.folder.name}.log")
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(log, "w", encoding="utf-8") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "recbole_ext.compare.child"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            child.communicate(json.dumps(asdict(one), default=str))
        except BaseException as stop:
            child.kill()  # a kill at any moment leaves a run that can be continued
            child.wait()
            if isinstance(stop, KeyboardInterrupt):
                stop.args = ("give the same command once more, and the comparison goes on",)
            raise
    if child.returncode == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} (exit code {child.returncode}, see {log.name})"


def _valid(folder: Path) -> str:
    best = json.loads((folder / "result.json").read_text(encoding="utf-8"))["best_valid"]
    return ", ".join(f"validation {name} {value:.4f}" for name, value in list(best.items())[:1])


def _write_plan(runs: Sequence[Planned], output_dir: Path, failures: dict[str, str]) -> None:
    rows = [
        {
            "model": one.model,
            "dataset": one.dataset,
            "seed": one.seed,
            "folder": f"runs/{one.folder.name}",
            "failure": failures.get(one.folder.name),
        }
        for one in runs
    ]
    write_text(output_dir / "plan.json", json.dumps(rows, indent=2) + "\n")
