"""The counts of a training split are those of the split that a run trains on."""

from __future__ import annotations

from collections import Counter

import torch
from recbole.utils import init_seed

from recbole_ext.compare.split import read_split
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders


def test_a_random_split_is_that_of_the_run(tiny_data_path):
    settings = {"data_path": str(tiny_data_path), "use_gpu": False, "seed": 7}
    config = Config("BPR", "tiny", config_dict=settings)
    assert config["eval_args"]["order"] == "RO" and "RS" in config["eval_args"]["split"]
    init_seed(7, True)  # as a run does before it loads its data
    train = create_loaders(config, create_dataset(config))[0].dataset
    items = train.id2token("item_id", train.inter_feat["item_id"])
    torch.manual_seed(99)
    found = read_split("tiny", config.resolved).popularity
    assert Counter({item: n for item, n in found.items() if n}) == Counter(items)
