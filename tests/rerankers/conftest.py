"""Runs of the tiny data set."""

from __future__ import annotations

from two_stage_help import runs  # noqa: F401 - a fixture
