"""A trained language model's folder: adapters as peft writes them, or all weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_ext.run_folder import write_text
from recbole_ext.types import UserError

FILE = "language_model.json"
"""Says what training has left; written last."""
NOTHING, ADAPTER, WEIGHTS = "nothing", "adapter", "weights"
"""What is kept; the last two are folders too."""


def save_model(folder: Path, model: Any, adapter: Any, tokenizer: Any, is_trained: bool) -> None:
    """Write what training has changed into a folder that exists.

    Args:
        folder: Where to.
        model: The model.
        adapter: peft's wrapper of it, or ``None``.
        tokenizer: Its tokenizer.
        is_trained: Whether there is anything.

    Raises:
        UserError: It cannot be written.
    """
    kept = NOTHING if not is_trained else WEIGHTS if adapter is None else ADAPTER
    try:
        if kept == ADAPTER:
            adapter.save_pretrained(folder / ADAPTER)
        elif kept == WEIGHTS:
            model.save_pretrained(folder / WEIGHTS)
            tokenizer.save_pretrained(folder / WEIGHTS)
    except OSError as error:
        raise UserError(
            f"cannot write {folder / kept}: {error.strerror or error}; free space or choose "
            "another place"
        ) from error
    write_text(folder / FILE, json.dumps({"kept": kept}) + "\n")


def what_is_kept(folder: Path) -> str:
    """Return what :func:`save_model` has written into a folder.

    Raises:
        UserError: Nothing, or it is damaged.
    """
    path = folder / FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["kept"]
        if kept not in (NOTHING, ADAPTER, WEIGHTS):
            raise ValueError(f"kept is {kept!r}")
        if kept != NOTHING and not (folder / kept).is_dir():
            raise ValueError(f"there is no folder {kept}")
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no trained language model (no {FILE}); train the reranker"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); train the reranker anew") from error
    return kept
