"""The reranker qwen with a small random Qwen3: scores, training, what is kept."""

from __future__ import annotations

import pytest
from rerankers.contracts import RerankerContract

pytest.importorskip("peft", reason="needs the extras [llm] and [lora]")

FEW = {"epochs": 1, "show_progress": False, "learning_rate": 0.05, "train_batch_size": 2}


class TestListwise(RerankerContract):
    name = "qwen"

    @pytest.fixture
    def given(self, tiny_qwen):
        return {"model": tiny_qwen, **FEW}


class TestPointwise(RerankerContract):
    name = "qwen"

    @pytest.fixture
    def given(self, tiny_qwen):
        return {"model": tiny_qwen, "scoring": "pointwise", **FEW}
