"""``--controls``: what FTRagRec's gain could be due to, other than what it retrieves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recbole_ext.types import UserError


@dataclass(frozen=True)
class Variant:
    """A column of the comparison: a model as it is, or a control.

    Attributes:
        name: What the report calls it.
        model: The model that is run.
        settings: What is set for it alone, stronger than the user's files.
        control_of: The model that it is a control of.
        extends: Whether it is a finished run of ``model`` that goes on for as many epochs as
            ``control_of`` has trained on top of the same run.
    """

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    control_of: str | None = None
    extends: bool = False


CONTROLS = (
    Variant("DuoRec (as many more epochs)", "DuoRec", {}, "FTRagRec", extends=True),
    Variant("FTRagRec (alpha 0)", "FTRagRec", {"calibrate": "none", "alpha": 0.0}, "FTRagRec"),
    Variant("FTRagRec (random neighbours)", "FTRagRec", {"neighbours": "random"}, "FTRagRec"),
    Variant(
        "FTRagRec (random neighbours, weight fixed)",
        "FTRagRec",
        {"neighbours": "random", "calibrate": "none", "top_k": 50},
        "FTRagRec",
    ),
)
"""The last cannot leave them out; in the one before calibration may."""


def variants_of(
    models: Sequence[str], variants: Sequence[Variant], controls: bool
) -> list[Variant]:
    """Return the models, their variants, and the controls behind them where they are wanted.

    Raises:
        UserError: Controls are wanted, and a model that they are about is not there.
    """
    plain = [*(Variant(model, model) for model in models), *variants]
    if not controls:
        return plain
    missing = {"DuoRec", "FTRagRec"} - set(models)
    if missing:
        raise UserError(
            "--controls are of FTRagRec against the DuoRec that it starts from; add "
            f"{' and '.join(sorted(missing))} to --models"
        )
    return [*plain, *CONTROLS]
