"""The charts of a search: how it went, and what the metric depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_ext.atomic import replacing

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def draw_history(
    path: Path, trials: Sequence[FrozenTrial], metric: str, is_bigger_better: bool
) -> None:
    """Draw the trials in order, and the best value so far."""
    from matplotlib.figure import Figure  # costs half a second: only where it is used
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    styles = (("COMPLETE", "o", "finished"), ("PRUNED", "x", "pruned"))
    for state, marker, name in styles:
        points = [(t.number, t.value) for t in trials if t.state.name == state]
        if points:
            axes.plot(*zip(*points, strict=True), marker, label=name)
    line = best_so_far(trials, is_bigger_better)
    axes.plot(*zip(*line, strict=True), drawstyle="steps-post", color="grey", label="best so far")
    axes.set(xlabel="trial", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    _save(path, figure)


def best_so_far(trials: Sequence[FrozenTrial], is_bigger_better: bool) -> list[tuple[int, float]]:
    """Return (trial, best value of the finished ones up to it)."""
    better = max if is_bigger_better else min
    line: list[tuple[int, float]] = []
    for one in trials:
        if one.state.name == "COMPLETE":
            line.append((one.number, better(one.values[0], line[-1][1]) if line else one.values[0]))
        elif line:
            line.append((one.number, line[-1][1]))
    return line


def draw_importance(path: Path, importance: Mapping[str, float], metric: str) -> None:
    """Draw a bar per setting, the most important above."""
    from matplotlib.figure import Figure

    names = list(importance)[::-1]
    figure = Figure(figsize=(7, 1 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(names, [importance[name] for name in names]), fmt="%.2f", padding=3)
    axes.set(xlabel=f"share of what {metric} depends on (PED-ANOVA)", xlim=(0, 1.1))
    _save(path, figure)


def _save(path: Path, figure: Any) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
