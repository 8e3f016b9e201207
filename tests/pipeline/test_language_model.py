"""A language model on the command line: untrained, trained, taken again, broken off."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from recbole_ext.cli import main
from recbole_ext.rerankers.qwen import QwenReranker

pytest.importorskip("peft", reason="needs the extras [llm] and [lora]")


def test_it_trains_goes_on_and_is_taken_again(candidates, tiny_qwen, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [f"--candidates={candidates}", "--rerank_top_k=4", "--topk=2", "--output_top_k=4"]
    own = [f"--reranker=qwen:{tiny_qwen}", "--show_progress=False", "--learning_rate=0.02"]
    assert main(["rerank", *given, *own, "--cache_dir=kept", "--output_dir=plain"]) == 0
    trained = [*given, *own, "--epochs=1", "--train_split=valid", "--output_dir=trained"]

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(QwenReranker, "save", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(main(["rerank", *trained]))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert Path("trained/reranker/training.pt").is_file()
    assert main(["rerank", *trained]) == 0
    again = ["--reranker_dir=trained/reranker", "--output_dir=again"]
    assert main(["rerank", *given, *again]) == 0
    lists = {
        name: pd.read_parquet(f"{name}/ranked.parquet") for name in ("plain", "trained", "again")
    }
    assert lists["trained"].equals(lists["again"]) and not lists["trained"].equals(lists["plain"])
    told = json.loads(Path("trained/reranker/reranker.json").read_text())["training"]
    assert told["epoch"] == 1 and told["n_left_out"] == 0
    assert len(pd.read_parquet("kept")) == len(lists["plain"])
