"""Runs and candidates of the tiny data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rerankers.tiny_llm import tiny_qwen  # noqa: F401 - a fixture
from two_stage_help import runs  # noqa: F401 - a fixture

from recbole_ext.pipeline.candidates import write_candidates
from recbole_ext.pipeline.retrieve import retrieve


@pytest.fixture(scope="session")
def candidates(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder of SASRec's twelve best items of every user."""
    folder = tmp_path_factory.mktemp("candidates")
    write_candidates(folder, retrieve(runs("SASRec"), 12, ["valid", "test"], "mask"))
    return folder
