"""One stage-two epoch of FTRagRec: cached states and neighbours against the published way.

Ours twice: an epoch that finds its neighbour table there, and the first one, which encodes the
memory, builds the index and searches for all rows. The published way
(``benchmarks/reference_ftragrec.py``) runs under RecBole's trainer, autograd's anomaly mode on as
RecBole leaves it, takes a random share of the epoch's steps, and its seconds are scaled up;
building its index is left out. Rows, batch size, number of neighbours and sizes are the same.

    python -m benchmarks.ftragrec_epoch --dataset=amazon-beauty --data_path=../shared/data --top_k=5
"""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Clock, SomeSteps, arguments, side_by_side

STEPS = 4
"""Steps of the epoch that the published way takes."""


def _prepare(settings: dict[str, Any]) -> tuple[Any, Any, Path]:
    """Return configuration, training loader and a folder; the encoder may be a random one."""
    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries

    # isort: split
    from recbole.utils import init_seed

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders

    logging.disable(logging.INFO)
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)  # RecBole writes TensorBoard files where it stands
    fixed = {"use_gpu": False, "checkpoint_dir": str(folder), "show_progress": False}
    config = Config("FTRagRec", config_dict={**fixed, **settings})
    init_seed(config["seed"], True)
    train, _, _ = create_loaders(config, create_dataset(config))
    return config, train, folder


def ours(clock: Clock, settings: dict[str, Any], is_first: bool) -> None:
    """Our trainer; ``is_first`` pays for memory, index and search too."""
    config, train, folder = _prepare(settings)
    from recbole_ext.callbacks.base import CallbackList
    from recbole_ext.trainer.hooked_trainer import build_trainer

    model = config.model_class(config, train._dataset)
    trainer = build_trainer(config, model, folder, CallbackList(), {})
    trainer.state.train_data, trainer.state.steps_per_epoch = train, len(train)
    trainer._validates = False  # as without validation data
    if not is_first:
        trainer._train_epoch(train, 0)
    with clock:
        trainer._train_epoch(train, 1)
    clock.notes["steps"] = len(train)


def published(clock: Clock, settings: dict[str, Any]) -> None:
    """The Transformer and the search in every step, under RecBole's trainer."""
    config, train, _ = _prepare(settings)
    import torch
    from recbole.data.dataloader import TrainDataLoader
    from recbole.trainer import Trainer

    from benchmarks.reference_ftragrec import ReferenceFTRagRec

    rows = train._dataset
    config["loss_type"] = "CE"
    model = ReferenceFTRagRec(config, rows)
    model.build_index(TrainDataLoader(config, rows, None, shuffle=False))
    torch.autograd.set_detect_anomaly(True)  # as ``import recbole.quick_start`` does
    trainer = Trainer(config, model)
    loader = TrainDataLoader(config, rows, None, shuffle=True)
    trainer._train_epoch(SomeSteps(loader, 1), 0)  # as ours, it has begun when the clock does
    some = SomeSteps(loader, STEPS)
    clock.share = len(some) / len(train)
    with clock:
        trainer._train_epoch(some, 0)
    clock.notes["steps"] = f"{len(some)} of {len(train)}"


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(
        __doc__ or "",
        dataset="amazon-beauty",
        data_path="",
        pretrained_path="",
        top_k=100,
        train_batch_size=512,
    )
    settings = {
        "dataset": found.dataset,
        "top_k": found.top_k,
        "train_batch_size": found.train_batch_size,
        "pretrain": "none",
        "freeze": "all",
        "callbacks": None,
        "calibrate": "none",
    }
    for name in ("data_path", "pretrained_path"):
        if getattr(found, name):
            settings[name] = str(Path(getattr(found, name)).resolve())
    title = f"FTRagRec, one stage-two epoch, {found.dataset}, {found.top_k} neighbours"
    ways = {
        "ours": partial(ours, settings=settings, is_first=False),
        "ours, the first epoch": partial(ours, settings=settings, is_first=True),
        "published": partial(published, settings=settings),
    }
    print(side_by_side(title, ways, found.rounds, 30.0))


if __name__ == "__main__":
    main()
