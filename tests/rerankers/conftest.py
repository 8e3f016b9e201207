"""A small language model in a folder, for the tests that need transformers."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random Qwen3 with two layers."""
    pytest.importorskip("transformers", reason="needs the extra [llm]")
    from rerankers.tiny_llm import save_qwen

    return str(save_qwen(tmp_path_factory.mktemp("qwen")))
