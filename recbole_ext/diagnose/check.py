"""A check: a value, what it should be, how bad it is, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

OK, WARN, FAIL, SKIP = "OK", "WARN", "FAIL", "SKIP"
SEVERITIES = (FAIL, WARN, OK, SKIP)
"""The worst first."""
NOTHING = "Nothing to do."


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis.

    Attributes:
        name: What is looked at.
        value: What was found; ``None`` where nothing could be.
        threshold: What it should be, in words.
        severity: One of :data:`SEVERITIES`.
        advice: One sentence on what to do, or on why it was left out.
    """

    name: str
    value: float | str | None
    threshold: str
    severity: str
    advice: str


@dataclass
class Section:
    """The checks of a group, with its plots.

    Attributes:
        title: Of the group.
        checks: In the order in which they were made.
        figures: HTML of each plot.
    """

    title: str
    checks: list[Check] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def at_least(self, name: str, value: float, warn: float, fail: float, advice: str) -> None:
        """Add a value that is to be ``warn`` or more; below ``fail`` it is a failure."""
        # a value that is no number compares with nothing, and is a failure
        severity = OK if value >= warn else WARN if value >= fail else FAIL
        # without a failure there is no second number to tell
        low = "" if math.isinf(fail) else f" (FAIL below {fail:.4g})"
        self.flag(name, value, f">= {warn:.4g}{low}", severity, advice)

    def at_most(self, name: str, value: float, warn: float, fail: float, advice: str) -> None:
        """Add a value that is to be ``warn`` or less; above ``fail`` it is a failure."""
        severity = OK if value <= warn else WARN if value <= fail else FAIL
        high = "" if math.isinf(fail) or fail == warn else f" (FAIL above {fail:.4g})"
        self.flag(name, value, f"<= {warn:.4g}{high}", severity, advice)

    def flag(
        self, name: str, value: float | str, threshold: str, severity: str, advice: str
    ) -> None:
        """Add a check that is judged already; its advice is told where there is something to do."""
        value = value if isinstance(value, str) else float(value)
        said = NOTHING if severity == OK else advice
        self.checks.append(Check(name, value, threshold, severity, said))

    def known(self, name: str, value: float | str) -> None:
        """Add a value that is neither good nor bad."""
        self.flag(name, value, "-", OK, "")

    def skip(self, name: str, reason: str) -> None:
        """Add a check that does not apply, with the reason."""
        self.checks.append(Check(name, None, "-", SKIP, reason))


class NotApplicable(Exception):  # noqa: N818 - a reason, no error
    """Raised by a group that does not apply to a model; the message says why."""
