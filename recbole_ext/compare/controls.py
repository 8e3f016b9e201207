"""``--controls``: what FTRagRec's gain could be due to, other than what it retrieves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_ext.models.ftragrec_settings import train_alpha_of
from recbole_ext.settings_reading import read_yaml
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
        mixes_alike: Whether its scores are mixed as those of the finished ``control_of``.
    """

    name: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    control_of: str | None = None
    extends: bool = False
    mixes_alike: bool = False

    @property
    def own(self) -> set[str]:
        """Settings that the command line does not change: a control's own."""
        filled = MIX_KEYS if self.mixes_alike else ()
        return {*self.settings, *filled} if self.control_of else set()


MIX_KEYS = (
    "alpha",
    "train_alpha",
    "top_k",
    "smoothing",
    "retriever_temperature",
    "learn_temperature",
)
"""What :func:`mix_of` may set."""

CONTROLS = (
    Variant("DuoRec (as many more epochs)", "DuoRec", {}, "FTRagRec", extends=True),
    Variant(
        "FTRagRec (alpha 0)",
        "FTRagRec",
        # without neighbours every mix is the encoder alone, but gate, which learns its alpha
        {"calibrate": "none", "alpha": 0.0, "mix": "log_linear"},
        "FTRagRec",
    ),
    Variant("FTRagRec (random neighbours)", "FTRagRec", {"neighbours": "random"}, "FTRagRec"),
    Variant(
        "FTRagRec (random neighbours, weight fixed)",
        "FTRagRec",
        {"neighbours": "random", "calibrate": "none"},
        "FTRagRec",
        mixes_alike=True,
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


def mix_of(folder: Path) -> dict[str, Any]:
    """Return the settings that mix scores, without calibration, as a finished FTRagRec does.

    Its training shares stay what they were: calibration chooses for the scores alone.

    Args:
        folder: Its run folder; ``result.json`` says what calibration chose. A gate has no alpha.
    """
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))["retrieval"]
    settings = {key: found[key] for key in ("alpha", "top_k", "smoothing") if key in found}
    if "alpha" in found:
        settings["train_alpha"] = train_alpha_of(read_yaml(folder / "config.yaml"))
    # rounded: the lowest that is allowed is a bit lower in single precision
    temperature = round(found["temperature"], 6)
    return {**settings, "retriever_temperature": temperature, "learn_temperature": False}
