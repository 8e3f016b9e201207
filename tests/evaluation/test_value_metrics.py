"""Sampled evaluation with value metrics (RecBole's DIN and DIEN) has no ranks, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_ext.quick_start import run


def test_sampled_evaluation_with_auc_writes_no_ranks(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "epochs": 1, "metrics": ["AUC"], "valid_metric": "AUC"}
    settings.update(train_neg_sample_args={"distribution": "uniform", "sample_num": 1})
    settings.update(loss_type="BPR", hidden_size=8, inner_size=16, n_layers=1)
    settings["eval_args"] = {"mode": "uni5"}
    result = run("SASRec", "tiny", config_dict={**settings, "output_dir": str(tmp_path / "run")})
    assert 0 <= result["test"]["auc"] <= 1
    assert not (tmp_path / "run" / "per_user.parquet").exists()
