"""``recbole-ext diagnose``: what may be wrong with a run, its data and its model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_ext.arguments import asks_for_help, call, help_of
from recbole_ext.diagnose import (
    baselines,
    calibration,
    coverage,
    embeddings,
    geometry,
    gradients,
    interactions,
    leakage,
    learning,
    predictions,
)
from recbole_ext.diagnose.check import FAIL, NotApplicable, Section
from recbole_ext.diagnose.report import terminal, worst_of, write
from recbole_ext.diagnose.subject import Subject
from recbole_ext.quick_start import load_run
from recbole_ext.types import UserError

GROUPS = (
    baselines,
    predictions,
    learning,
    interactions,
    leakage,
    coverage,
    embeddings,
    geometry,
    gradients,
    calibration,
)
COMMAND = "recbole-ext diagnose"


def diagnose(run: str, steps: int = 100) -> int:
    """Check a finished run, its data and its model; write diagnose.json and diagnose.html into it.

    The test is evaluated once for each baseline and each table of the model, and two small models
    are trained. Exit code 1 where a check fails.

    Args:
        run: Run folder.
        steps: Optimizer steps of the checks that train.

    Raises:
        UserError: The folder holds no finished run.
    """
    if steps < 10:
        raise UserError(f"{COMMAND}: --steps takes a number from 10 up, not {steps}")
    folder = Path(run)
    subject = Subject(load_run(folder, {"log_wandb": False, "nproc": 1}), steps)
    sections = diagnosed(subject)
    title = f"Diagnosis of {subject.config['model']} on {subject.config['dataset']}"
    about = {"run": str(folder), **{key: subject.config[key] for key in ("model", "dataset")}}
    write(folder, title, about, sections)
    print(f"{terminal(title, sections)}\nreport: {folder / 'diagnose.html'}")
    return 1 if worst_of(sections) == FAIL else 0


def diagnosed(subject: Subject, groups: Sequence[Any] = GROUPS) -> list[Section]:
    """Return what each group of checks says; one that breaks is a failure, and ends no other."""
    sections = []
    for group in groups:
        section = Section(group.TITLE)
        sections.append(section)
        try:
            group.check(subject, section)
        except NotApplicable as reason:
            section.skip("all", f"{reason}.")
        except Exception as error:
            logging.getLogger().debug("%s", group.TITLE, exc_info=True)
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            advice = "Mend what this says, in the model or in the data, and diagnose once more."
            section.flag("the checks of this group can be made", said, "no error", FAIL, advice)
    return sections


def run(arguments: Sequence[str]) -> int:
    """Run the command by its arguments; return the exit code."""
    if asks_for_help(arguments):
        print(help_of(diagnose, COMMAND))
        return 0
    return call(diagnose, arguments, COMMAND)
