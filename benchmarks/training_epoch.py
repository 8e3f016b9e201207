"""One training epoch: RecBole's trainer and model against ours, on the same rows.

SASRec: RecBole's ``Trainer`` and ``SASRec`` as RecBole 1.2.1 runs them, autograd's anomaly mode on
(its SINE module switches it on for every sequential model), against our trainer with
``accelerate``; batches of 2048 rows, cross-entropy over all items. DuoRec: the published method in
RecBole's layers (``benchmarks/reference_duorec.py``) under RecBole's trainer against our model;
batch size and settings are those of ``properties/model/DuoRec.yaml``. RecBole's side takes only
some steps of the epoch, drawn at random, and its seconds are scaled up.

    python -m benchmarks.training_epoch --model=SASRec --dataset=ml-100k
    python -m benchmarks.training_epoch --model=DuoRec --dataset=amazon-beauty --data_path=data
"""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial, update_wrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.side_by_side import Clock, SomeSteps, arguments, side_by_side

TARGETS = {
    ("SASRec", "ml-100k"): 4.0,
    ("SASRec", "amazon-beauty"): 10.0,
    ("DuoRec", "amazon-beauty"): 10.0,
}
STEPS = {"SASRec": 3, "DuoRec": 6}
"""Steps of the epoch that RecBole's side takes."""


def ours(clock: Clock, options: dict[str, Any]) -> None:
    """Our trainer; RecBole's models with ``accelerate``."""
    epoch, train = our_epoch(options, accelerate=options["model"] == "SASRec")
    _measure(clock, epoch, train, options["steps"] or len(train))


def our_epoch(options: dict[str, Any], accelerate: bool) -> tuple[Any, Any]:
    """Return our trainer's epoch, a function of a loader, and the loader."""
    parts = _prepare(options, options["model"], accelerate)
    from recbole_ext.callbacks.base import CallbackList
    from recbole_ext.data.vocabulary import vocabulary_of
    from recbole_ext.models.accelerate import accelerated
    from recbole_ext.trainer.hooked_trainer import RunHooks, build_trainer

    model = accelerated(parts.model, parts.config)
    trainer = build_trainer(
        parts.config, model, parts.folder, CallbackList(), vocabulary_of(parts.dataset)
    )
    # without records and checkpoints of the run
    return super(RunHooks, trainer)._train_epoch, parts.train


def recbole(clock: Clock, options: dict[str, Any], anomaly: bool = True) -> None:
    """RecBole's trainer, its model, and the anomaly mode that importing its models leaves on."""
    parts = _prepare(options, options["model"], accelerate=False, reference=True)
    import torch
    from recbole.trainer import Trainer

    torch.autograd.set_detect_anomaly(anomaly)  # on: as ``import recbole.quick_start`` does
    trainer = Trainer(parts.config, parts.model)
    _measure(clock, trainer._train_epoch, parts.train, STEPS[options["model"]])


def without_anomaly_mode(clock: Clock, options: dict[str, Any]) -> None:
    """The same without the anomaly mode, which is what this package runs by default."""
    recbole(clock, options, anomaly=False)


def _measure(clock: Clock, epoch: Any, train: Any, steps: int) -> None:
    import resource

    some = SomeSteps(train, steps)
    clock.share = len(some) / len(train)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with clock:
        total = epoch(some, 0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loss = sum(total) if isinstance(total, tuple) else total
    clock.notes = {
        "steps": f"{len(some)} of {len(train)}",
        "seconds/step": round(clock.seconds / len(train), 3),
        "CPU seconds/step": round(busy / len(some), 3),  # what other processes do not lengthen
        "faults/step": (after.ru_minflt - before.ru_minflt) // len(some),
        "loss": round(float(loss) / len(some), 3),
    }


def _prepare(
    options: dict[str, Any], model: str, accelerate: bool, reference: bool = False
) -> SimpleNamespace:
    """Build data and model; both sides have the same rows in batches of the same size."""
    from recbole.data.dataloader import TrainDataLoader
    from recbole.utils import init_seed

    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries
    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders

    logging.disable(logging.INFO)
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)  # RecBole writes TensorBoard files where it stands
    settings = {
        "use_gpu": False,
        "checkpoint_dir": str(folder),
        "show_progress": False,
        **options["settings"],
    }
    if options["model"] == "SASRec":
        settings |= {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "train_neg_sample_args": None,
            "accelerate": accelerate,
        }
    config = Config(model, options["dataset"], config_dict=settings)
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, _, _ = create_loaders(config, dataset)
    init_seed(config["seed"], True)
    if reference and model == "DuoRec":
        from benchmarks.reference_duorec import ReferenceDuoRec

        net: Any = ReferenceDuoRec(config, train._dataset)
    else:
        net = config.model_class(config, train._dataset)
    if reference:
        train = TrainDataLoader(config, train._dataset, None, shuffle=True)
    return SimpleNamespace(config=config, dataset=dataset, train=train, model=net, folder=folder)


WAYS = {
    "ours": ours,
    "RecBole": recbole,
    "RecBole without anomaly mode": without_anomaly_mode,
}


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(
        __doc__ or "", model="SASRec", dataset="ml-100k", data_path="", steps=0, only=""
    )
    data_path = {"data_path": str(Path(found.data_path).resolve())} if found.data_path else {}
    options = {
        "model": found.model,
        "dataset": found.dataset,
        "steps": found.steps,
        "settings": data_path,
    }
    ways = {
        name: update_wrapper(partial(way, options=options), way)
        for name, way in WAYS.items()
        if found.only in ("", name)
    }
    target = TARGETS.get((found.model, found.dataset))
    print(
        side_by_side(
            f"One training epoch of {found.model} on {found.dataset}", ways, found.rounds, target
        )
    )


if __name__ == "__main__":
    main()
