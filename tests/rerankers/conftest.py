"""Runs of the tiny data set; a small language model in a folder, where transformers is there."""

from __future__ import annotations

import pytest
from two_stage_help import runs  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random Qwen3 with two layers."""
    pytest.importorskip("transformers", reason="needs the extra [llm]")
    from rerankers.tiny_llm import save_qwen

    return str(save_qwen(tmp_path_factory.mktemp("qwen")))
