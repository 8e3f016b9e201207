"""Runs of the tiny data set, and a small language model in a folder."""

from __future__ import annotations

from rerankers.tiny_llm import tiny_qwen  # noqa: F401 - a fixture
from two_stage_help import runs  # noqa: F401 - a fixture
