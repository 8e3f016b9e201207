"""A diagnosis in its three forms: for the terminal, as JSON, and as one HTML file with plots."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recbole_ext.compare.page import Block, html
from recbole_ext.diagnose.check import FAIL, OK, SEVERITIES, WARN, Check, Section
from recbole_ext.run_folder import plain, write_text


def worst_of(sections: Sequence[Section]) -> str:
    """Return the worst severity of all checks; ``OK`` where there is none."""
    found = {check.severity for section in sections for check in section.checks}
    return next((one for one in (FAIL, WARN) if one in found), OK)


def value_of(check: Check) -> str:
    """Return a check's value as text."""
    if check.value is None:
        return "-"
    if isinstance(check.value, str):
        return check.value
    return str(int(check.value)) if check.value.is_integer() else f"{check.value:.4g}"


def terminal(title: str, sections: Sequence[Section]) -> str:
    """Return a line for each check, and advice below those that ask for it."""
    lines = [title]
    for section in sections:
        lines += ["", section.title]
        for one in section.checks:
            if one.value is None:
                lines.append(f"  {one.severity:<4}  {one.name}: {one.advice}")
                continue
            wanted = f"  [{one.threshold}]" if one.threshold != "-" else ""
            lines.append(f"  {one.severity:<4}  {one.name}: {value_of(one)}{wanted}")
            if one.severity in (WARN, FAIL):
                lines.append(f"        {one.advice}")
    return "\n".join([*lines, "", summary(sections)])


def summary(sections: Sequence[Section]) -> str:
    """Return how many checks there are of each severity."""
    counts = Counter(check.severity for section in sections for check in section.checks)
    return ", ".join(f"{counts[one]} {one}" for one in SEVERITIES)


def write(folder: Path, title: str, about: dict[str, Any], sections: Sequence[Section]) -> None:
    """Write ``diagnose.json`` and ``diagnose.html``, each whole or not at all.

    Args:
        folder: Where to.
        title: Of the page.
        about: What the JSON file says of the run.
        sections: The groups of checks.
    """
    groups = [
        {"group": one.title, "checks": [asdict(check) for check in one.checks]} for one in sections
    ]
    found = {**about, "severity": worst_of(sections), "groups": groups}
    write_text(folder / "diagnose.json", json.dumps(plain(found), indent=2) + "\n")
    write_text(folder / "diagnose.html", html(title, _blocks(title, sections)))


def _blocks(title: str, sections: Sequence[Section]) -> list[Block]:
    blocks: list[Block] = [("h1", title), ("p", summary(sections))]
    worst = [
        (f"{one.severity}: {_breakable(one.name)}", one)
        for severity in (FAIL, WARN)
        for section in sections
        for one in section.checks
        if one.severity == severity
    ]
    blocks += [("h2", "What asks for attention")] if worst else []
    for name, one in worst:
        blocks += [("h3", name), ("p", f"{value_of(one)}, wanted: {one.threshold}.")]
        blocks += [("p", one.advice)]
    for section in sections:
        rows = [_row(one) for one in section.checks]
        blocks += [("h2", section.title), ("table", [["check", "value", "wanted"], *rows])]
        blocks += [("figure", figure) for figure in section.figures]
    return blocks


def _row(check: Check) -> list[str]:
    # the severity in the first column, which a narrow screen keeps in sight
    value = check.advice if check.value is None else value_of(check)
    return [f"{check.severity}: {_breakable(check.name)}", value, check.threshold]


def _breakable(name: str) -> str:
    """Return a name that may break behind its dots and underscores, as those of weights."""
    return re.sub(r"([._])(?=[A-Za-z])", "\\1\u200b", name)
