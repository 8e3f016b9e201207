"""An evaluation: RecBole's trainer, loaders and collector against ours; the metrics must agree.

full: every user of ml-1m, all items ranked, SASRec (ours with ``accelerate``) or BPR. The notes say
how many of the seconds are the model's own scoring. wide: collector and evaluator alone, 512 users
and 200,000 items, on given random scores. sampled: 100 uniform negatives for each user of ml-100k
with SASRec; RecBole's side takes 80 users only, with our negatives, and its seconds are scaled up;
the metrics in the notes are those of these users on both sides.

    python -m benchmarks.evaluation --what=full --model=SASRec --data_path=data
    python -m benchmarks.evaluation --what=full --model=BPR --data_path=data
    python -m benchmarks.evaluation --what=wide
    python -m benchmarks.evaluation --what=sampled
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from functools import partial, update_wrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side

METRICS = ["Recall", "NDCG", "MRR", "Hit"]
TARGETS = {"full": 3.0, "wide": 20.0, "sampled": 50.0}
SAMPLED_USERS = 80
"""Users of a sampled evaluation that RecBole's side takes, in batches of 40 as by its default."""


class Batches:
    """Some batches in the place of an evaluation loader; each is made when it is reached."""

    def __init__(self, loader: Any, size: int) -> None:
        self._dataset, self.loader, self.size = loader._dataset, loader, size

    def __iter__(self) -> Any:
        for begin in range(0, SAMPLED_USERS, self.size):
            yield self.loader.collate_fn(range(begin, begin + self.size))


def ours(clock: Clock, options: dict[str, Any]) -> None:
    """Our trainer, our loaders and our collector."""
    if options["what"] == "wide":
        from recbole_ext.trainer.collector import FastCollector

        return _wide(clock, FastCollector)
    parts = _prepare(options, accelerate=options["model"] == "SASRec")
    from recbole_ext.callbacks.base import CallbackList
    from recbole_ext.models.accelerate import accelerated
    from recbole_ext.trainer.hooked_trainer import build_trainer

    model = accelerated(parts.model, parts.config)
    trainer = build_trainer(parts.config, model, parts.folder, CallbackList(), {})
    _measure(clock, trainer, parts.loader)
    again = Clock()
    with again:
        trainer.evaluate(parts.loader, load_best_model=False)
    clock.notes["again"] = round(again.seconds, 3)  # the negatives are drawn already
    if options["what"] == "sampled":
        parts.loader.compact = True
        result = trainer.evaluate(Batches(parts.loader, SAMPLED_USERS), load_best_model=False)
        clock.notes |= _shown(result)
    return None


def recbole(clock: Clock, options: dict[str, Any]) -> None:
    """RecBole's trainer, its loaders and its collector."""
    if options["what"] == "wide":
        from recbole.evaluator import Collector

        import recbole_ext  # noqa: F401 - repairs RecBole on current libraries

        return _wide(clock, Collector)
    parts = _prepare(options, accelerate=False)
    from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
    from recbole.trainer import Trainer

    theirs = parts.loader
    if options["what"] == "full":
        loader = FullSortEvalDataLoader(parts.config, theirs._dataset, theirs._sampler)
    else:
        import numpy as np

        class Seeded(NegSampleEvalDataLoader):
            def _neg_sampling(self, inter_feat: Any) -> Any:
                np.random.seed([self.config["seed"], 2, int(inter_feat[self.uid_field][0])])
                return super()._neg_sampling(inter_feat)

        loader = Seeded(parts.config, theirs._dataset, theirs._sampler)
        clock.share = SAMPLED_USERS / len(loader.uid_list)
        loader = Batches(loader, 40)
    _measure(clock, Trainer(parts.config, parts.model), loader)
    return None


def _measure(clock: Clock, trainer: Any, loader: Any) -> None:
    """Measure an evaluation, and what of it is the model's own scoring."""
    spent = 0.0

    def timed(score: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return score(*args)
            finally:
                spent += time.perf_counter() - began

        return call

    model = trainer.model
    model.full_sort_predict, model.predict = timed(model.full_sort_predict), timed(model.predict)
    with clock:
        result = trainer.evaluate(loader, load_best_model=False)
    clock.notes = {"scoring": round(spent / clock.share, 3), **_shown(result)}


def _shown(result: Any) -> dict[str, float]:
    return {name: float(result[name]) for name in ("ndcg@10", "hit@10")}


def _wide(clock: Clock, collector_class: Any) -> None:
    """Measure collector and evaluator on random scores, [512, 200000] in one batch."""
    import torch
    from recbole.evaluator import Evaluator

    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries
    from recbole_ext.config import Config

    settings = {"use_gpu": False, "metrics": METRICS, "topk": [5, 10, 20]}
    config = Config("BPR", "ml-100k", config_dict={**settings, "valid_metric": "NDCG@10"})
    generator = torch.Generator().manual_seed(0)
    n_users, n_items = 512, 200_000
    scores = torch.randn(n_users, n_items, generator=generator)  # [B, N]
    positives = torch.randint(1, n_items, (n_users,), generator=generator)  # [B]
    rows = torch.arange(n_users)  # [B]
    scores[rows, positives] += 4.0
    collector, evaluator = collector_class(config), Evaluator(config)
    with clock:
        collector.eval_batch_collect(scores, None, rows, positives)
        result = evaluator.evaluate(collector.get_data_struct())
    clock.notes = _shown(result)


def _prepare(options: dict[str, Any], accelerate: bool) -> SimpleNamespace:
    """Build the test loader and an untrained model, of the same weights on both sides."""
    from recbole.utils import init_seed

    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries
    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders

    logging.disable(logging.INFO)
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)  # RecBole writes TensorBoard files where it stands
    settings: dict[str, Any] = {
        "use_gpu": False,
        "checkpoint_dir": str(folder),
        "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "metrics": METRICS,
        "topk": [5, 10, 20],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
        **options["settings"],
    }
    mode = "full" if options["what"] == "full" else "uni100"
    if options["model"] == "SASRec":
        settings |= {"train_neg_sample_args": None, "accelerate": accelerate}
        leave_one_out = {"split": {"LS": "valid_and_test"}, "order": "TO"}
        settings["eval_args"] = {**leave_one_out, "mode": mode}
    else:
        settings["eval_args"] = {"mode": mode}
    config = Config(options["model"], options["dataset"], config_dict=settings)
    init_seed(config["seed"], True)
    train, _, test = create_loaders(config, create_dataset(config))
    init_seed(config["seed"], True)
    model = config.model_class(config, train._dataset)
    return SimpleNamespace(config=config, loader=test, model=model, folder=folder)


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(__doc__ or "", what="full", model="SASRec", dataset="", data_path="", only="")
    if found.what not in TARGETS:
        raise SystemExit(f"--what={found.what}: one of {', '.join(TARGETS)} is meant")
    data_path = {"data_path": str(Path(found.data_path).resolve())} if found.data_path else {}
    dataset = found.dataset or ("ml-1m" if found.what == "full" else "ml-100k")
    options = {
        "what": found.what,
        "model": found.model,
        "dataset": dataset,
        "settings": data_path,
    }
    ways = {
        name: update_wrapper(partial(way, options=options), way)
        for name, way in {"ours": ours, "RecBole": recbole}.items()
        if found.only in ("", name)
    }
    title = {
        "full": f"Full ranking of {dataset} by {found.model}",
        "wide": "Collector and evaluator, 512 users, 200,000 items",
        "sampled": f"100 sampled negatives, {dataset}, {found.model}",
    }[found.what]
    print(side_by_side(title, ways, found.rounds, TARGETS[found.what]))


if __name__ == "__main__":
    main()
