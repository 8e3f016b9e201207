"""What the tests of settings share: settings of a built-in model, a file, a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole.model.general_recommender.bpr import BPR

from recbole_ext.config import Config


def sasrec(*overrides: str, files: list[Path] | None = None, **settings: Any) -> Config:
    return Config("SASRec", "ml-100k", files, settings, overrides)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


class ReadsItsOwnKey(BPR):
    """An outside model whose source reads a key that no YAML file knows."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.blend = config["my_own_blend"]
