"""A run of a news model that is killed and resumed: negatives that are drawn, a curriculum."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from recbole_ext.trainer.checkpoint import read_checkpoint
from tests.models.news_contract import SMALL
from tests.trainer.test_resume import start

HARD = {"hard_negative_share": 0.5, "hard_negative_steps": 10, "neg_ratio": 2}
SAMPLED = {"loss": "bce", "imbalance": "sampling"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [HARD, SAMPLED])
def test_a_killed_run_ends_as_the_one_that_was_not(news_data, tmp_path, how):
    data, vectors = news_data("text")
    given = {**SMALL, "data_path": data, "text_feature": vectors, "id_embedding_size": 8}
    given |= {"train_batch_size": 64, "epochs": 3, "use_gpu": False, **how}
    settings = [f"--{key}={json.dumps(value)}" for key, value in given.items()]
    arguments = ["--model=KGNewsRec", "--dataset=tiny", *settings]
    whole = start([*arguments, "--output_dir=whole"], tmp_path)
    assert whole.returncode == 0, whole.stderr
    killed = start([*arguments, "--output_dir=killed"], tmp_path, "batch", 6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = start(["--resume=killed"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    ours, wanted = (read_checkpoint(tmp_path / one / "last.pt") for one in ("killed", "whole"))
    assert ours["step"] == wanted["step"] > 6
    for name, value in wanted["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name
