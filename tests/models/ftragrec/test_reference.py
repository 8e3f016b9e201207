"""The reference of the benchmark runs on the settings that FTRagRec has by default."""

from __future__ import annotations

import math

from recbole.data.dataloader import TrainDataLoader

from benchmarks.reference_ftragrec import SHARE, ReferenceFTRagRec
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders


def test_the_reference_of_the_benchmark_has_losses_and_gradients(tiny_settings):
    settings = {**tiny_settings, "pretrain": "none", "callbacks": None, "top_k": 5}
    config = Config("FTRagRec", "tiny", config_dict=settings)
    train, _, _ = create_loaders(config, create_dataset(config))
    config["loss_type"] = "CE"
    model = ReferenceFTRagRec(config, train._dataset)
    assert config["alpha"] is None and model.alpha == SHARE
    loader = TrainDataLoader(config, train._dataset, None, shuffle=False)
    model.build_index(loader)
    assert model.index.ntotal == len(train._dataset)
    losses = model.calculate_loss(next(iter(loader)))
    assert len(losses) == 3 and all(math.isfinite(one.item()) for one in losses)
    sum(losses).backward()
    last = list(model.retriever.parameters())[-1]  # the others begin behind a layer of zeros
    assert last.grad.abs().sum() > 0
