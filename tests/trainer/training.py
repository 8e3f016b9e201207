"""What the tests of the trainer share: a trainer on the tiny data, and data with knowledge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from conftest import N_ITEMS
from recbole.utils import init_seed

from recbole_ext.callbacks.base import Callback, CallbackList
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.trainer.hooked_trainer import build_trainer

SMALL = {
    "SASRec": {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1},
    "BPR": {"embedding_size": 8},
}


def prepare(
    model: str | type,
    settings: dict[str, Any],
    folder: Path,
    callbacks: Sequence[Callback] = (),
    prepare_model: Callable[[Any], None] | None = None,
) -> Any:
    """Build the parts of a run in RecBole's order and with its seeds.

    Returns:
        ``trainer``, ``model``, ``train``, ``valid``, ``test``, ``config`` and ``fit()``.
    """
    folder.mkdir(exist_ok=True)
    base = {k: v for k, v in settings.items() if k != "train_neg_sample_args"}
    sizes = SMALL.get(model, {}) if isinstance(model, str) else {}
    config = Config(model, "tiny", config_dict={**base, **sizes, "checkpoint_dir": str(folder)})
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, valid, test = create_loaders(config, dataset)
    init_seed(config["seed"], True)
    net = config.model_class(config, train._dataset)
    if prepare_model:
        prepare_model(net)
    hooks = CallbackList(callbacks)
    trainer = build_trainer(config, net, folder, hooks, vocabulary_of(dataset))
    return SimpleNamespace(
        trainer=trainer,
        model=net,
        config=config,
        train=train,
        valid=valid,
        test=test,
        fit=lambda: trainer.fit(train, valid),
    )


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_knowledge(folder: Path, name: str = "tiny") -> None:
    """Write ``name.kg`` and ``name.link`` beside the other files: each item has two facts."""
    rng = np.random.default_rng(3)
    facts = [(f"e{i}", f"r{r}", f"e{rng.integers(60)}") for i in range(N_ITEMS) for r in range(2)]
    lines = ["head_id:token\trelation_id:token\ttail_id:token", *map("\t".join, facts)]
    (folder / name / f"{name}.kg").write_text("\n".join(lines) + "\n")
    lines = ["item_id:token\tentity_id:token", *(f"i{i}\te{i}" for i in range(N_ITEMS))]
    (folder / name / f"{name}.link").write_text("\n".join(lines) + "\n")
