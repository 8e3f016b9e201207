"""Steps of our trainer with ``torch_compile`` and without, after some that are not measured.

Torch compiles at the first step, and again where a shape is new; the notes say how many seconds the
first steps took. ``--accelerate=1`` for RecBole's sequential models.

    python -m benchmarks.compiled --model=SASRec --dataset=ml-100k
    python -m benchmarks.compiled --model=DuoRec --dataset=amazon-beauty --data_path=data --steps=60
"""

from __future__ import annotations

import time
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Clock, SomeSteps, arguments, side_by_side
from benchmarks.training_epoch import our_epoch

FIRST = 12
"""Steps that are not measured."""


def as_it_is(clock: Clock, options: dict[str, Any], compiles: bool = False) -> None:
    """Our trainer, its default."""
    options["settings"] |= {"torch_compile": compiles}
    epoch, train = our_epoch(options, bool(options["accelerate"]))
    began = time.perf_counter()
    epoch(SomeSteps(train, FIRST), 0)
    clock.notes = {f"seconds of {FIRST} steps before": round(time.perf_counter() - began, 1)}
    with clock:
        loss = epoch(SomeSteps(train, options["steps"]), 1)
    loss = sum(loss) if isinstance(loss, tuple) else loss
    clock.notes["loss"] = round(float(loss) / options["steps"], 3)


def compiled(clock: Clock, options: dict[str, Any]) -> None:
    """Our trainer with ``torch_compile``."""
    as_it_is(clock, options, compiles=True)


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(
        __doc__ or "", model="SASRec", dataset="ml-100k", data_path="", accelerate=0, steps=20
    )
    settings = {"data_path": str(Path(found.data_path).resolve())} if found.data_path else {}
    options = {**vars(found), "settings": settings}
    ways = {
        name: update_wrapper(partial(way, options=options), way)
        for name, way in {"as it is": as_it_is, "torch_compile": compiled}.items()
    }
    how = ", accelerate" if found.accelerate else ""
    title = f"{found.steps} training steps of {found.model} on {found.dataset}{how}"
    print(side_by_side(title, ways, found.rounds, None))


if __name__ == "__main__":
    main()
