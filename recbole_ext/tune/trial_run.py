"""A trial is a run that stops before its test: only the winner's is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ext.callbacks.base import Callback
from recbole_ext.config import Config
from recbole_ext.quick_start import Run, run
from recbole_ext.resume import place_of
from recbole_ext.tune.plan import Plan
from recbole_ext.tune.prune import Prune, Reported
from recbole_ext.tune.study import OfAllTrials


class TrialRun(Run):
    """A run of a study.

    Args:
        prune: Watches its validation.
        check_data: Takes the fingerprint of the data that it reads.
        tests: Whether it may look at the test set.
        config: Config.
        folder: Run folder, which exists.
        resuming: Whether ``last.pt`` is to be continued.
    """

    def __init__(
        self,
        prune: Prune,
        check_data: Callable[[str], None],
        tests: bool,
        config: Config,
        folder: Path,
        resuming: bool = False,
    ) -> None:
        super().__init__(config, folder, resuming)
        self._prune, self._check_data, self._tests = prune, check_data, tests

    def own_callbacks(self) -> list[Callback]:
        """Return what watches the validation."""
        return [self._prune]

    def load_data(self) -> None:
        """Load the data, which must be those of all trials, and have a validation set."""
        super().load_data()
        self._check_data(self.dataset.fingerprint)
        if not self.valid_data:
            raise OfAllTrials(
                "eval_args.split leaves no validation set, and nothing would decide between the "
                "trials; give it one, and another --output_dir"
            )

    def _test(self, trainer: Any) -> dict[str, float]:
        return super()._test(trainer) if self._tests else {}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        value: Best value of the validation metric; ``None`` where it was never computed.
        pruned: Whether it was ended early.
        result: The run's ``result.json``.
    """

    value: float | None
    pruned: bool
    result: dict[str, Any]


def train(
    plan: Plan,
    values: dict[str, Any],
    folder: Path,
    trial: Reported,
    check_data: Callable[[str], None],
) -> Outcome:
    """Train a trial, or go on where it was killed; its test set stays closed."""
    prune = Prune(trial, plan.metric)
    result = _run(plan, values, folder, partial(TrialRun, prune, check_data, False))
    return Outcome(result["best_valid"].get(plan.metric), prune.pruned, result)


def test(
    plan: Plan, values: dict[str, Any], folder: Path, check_data: Callable[[str], None]
) -> Any:
    """Evaluate a finished trial on the test set; return its result with the test's metrics."""
    return _run(plan, values, folder, partial(TrialRun, Prune(None, plan.metric), check_data, True))


def _run(plan: Plan, values: dict[str, Any], folder: Path, made: Callable[..., Run]) -> Any:
    settings = plan.settings_of(values)
    if (folder / "config.yaml").is_file():
        place = place_of(Config(config_dict=settings).resolved)
        return run(resume=folder, overrides=place, made=made)
    return run(config_dict={**settings, "output_dir": str(folder)}, made=made)
