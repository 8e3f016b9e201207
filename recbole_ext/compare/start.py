"""What a finished run started from: in words, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Start:
    """The warm start of a run.

    Attributes:
        text: What the report says of it.
        result: Its ``result.json``, where that is there.
        n_epochs: How many of the run's epochs are its start's: of a run that another goes on from.
    """

    text: str = "nothing"
    result: dict[str, Any] | None = None
    n_epochs: int = 0

    @property
    def seconds(self) -> float | None:
        """Seconds of its training, ``None`` where they are not known."""
        if self.text == "nothing":
            return 0.0
        return self.result["seconds"]["train"] if self.result else None


def read_start(
    place: Path, row: dict[str, Any], result: dict[str, Any], shown: Collection[str]
) -> Start:
    """Return what a run started from.

    Args:
        place: Folder of the comparison, which may have been moved since.
        row: The run's row of the plan.
        result: Its ``result.json``.
        shown: Folders of the plan's rows: another run of the comparison's is not what it shows.
    """
    if row.get("extends"):
        base = _result_in(place / row["extends"])
        text = f"the finished {row['model']} of the same seed"
        return Start(text, base, base["n_epochs"] if base else 0)
    given = result["warm_start"]
    if not given:
        return Start()
    name = Path(given).name
    own = f"runs/{name}" if f"runs/{name}" in shown else f"pretrained/{name}"
    base = _result_in(place / own)
    if base and base["seed"] == row["seed"]:
        return Start(f"{base['model']} of the same seed", base)
    # a file of another name may be anyone's, whatever lies beside it
    base = _result_in(Path(given).parent if name == "best.pt" else Path(given))
    return Start(given if base is None else f"{given} ({base['model']}, seed {base['seed']})", base)


def _result_in(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and {"model", "seed", "seconds", "n_epochs"} <= found.keys()
    return found if known else None
