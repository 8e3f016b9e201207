"""From the settings to the first training batch: ours against RecBole's own functions.

    python -m benchmarks.data_preparation --data_path=../shared/data
    python -m benchmarks.data_preparation --dataset=amazon-beauty --data_path=../shared/data

Measured is what happens between ``Config`` and the first batch: reading, filtering, numbering,
splitting, the loaders, one batch. Both sides have the same settings and this package's repairs of
RecBole; the notes hold a hash of the batch, which must be the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side

TARGET = 20.0


def ours(clock: Clock, settings: dict[str, Any]) -> None:
    """As ``run_recbole_ext.py`` does it."""
    from recbole_ext.data.build import create_dataset, create_loaders

    _measure(clock, settings, create_dataset, create_loaders)


def recbole(clock: Clock, settings: dict[str, Any]) -> None:
    """As RecBole's quick start does it."""
    from recbole.data import create_dataset, data_preparation

    import recbole_ext  # noqa: F401 - the repairs, before RecBole is imported

    _measure(clock, settings, create_dataset, data_preparation)


def _measure(clock: Clock, settings: dict[str, Any], create: Any, prepare: Any) -> None:
    import torch
    from recbole.utils import init_seed

    from recbole_ext.config import Config

    torch.set_num_threads(1)
    config = Config(settings["model"], settings["dataset"], config_dict=settings)
    init_seed(config["seed"], True)
    with clock:
        train, _, _ = prepare(config, create(config))
        batch = next(iter(train))
    clock.notes = {"rows": train.sample_size, "first batch": _hash(batch)}


def _hash(batch: Any) -> str:
    """Return a hash of all fields of a batch, with their names, types and shapes."""
    import hashlib

    digest = hashlib.sha256()
    for field in batch:
        values = batch[field]
        digest.update(f"{field} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:12]


WAYS = {"ours": ours, "RecBole": recbole}


def main() -> None:
    """Print the table."""
    chosen = arguments(__doc__.splitlines()[0], model="SASRec", dataset="ml-1m", data_path="")
    settings = {"model": chosen.model, "dataset": chosen.dataset, "use_gpu": False}
    # RecBole reads a cache of this folder whenever there is one
    settings |= {"checkpoint_dir": "/nonexistent", "state": "WARNING"}
    if chosen.data_path:
        settings["data_path"] = chosen.data_path
    if chosen.model == "SASRec":
        settings["train_neg_sample_args"] = None  # its loss is a cross-entropy
    ways = {
        "ours": partial(ours, settings=settings),
        "RecBole": partial(recbole, settings=settings),
    }
    title = f"Data preparation: {chosen.model} on {chosen.dataset}, to the first batch"
    print(side_by_side(title, ways, chosen.rounds, TARGET))


if __name__ == "__main__":
    main()
