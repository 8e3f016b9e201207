"""The tables that a model reads, ids and features, and what it is without one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.modules.feature_table import FeatureTable

TABLES = (nn.Embedding, FeatureSource, FeatureTable)


def tables_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return name -> table of ids or of stored features; a table under two names once."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        is_one = isinstance(module, TABLES) and not (
            isinstance(module, nn.Embedding) and module.num_embeddings < 3
        )
        if is_one and not any(name.startswith(f"{other}.") for other in found):
            found[name] = module
    return found


@contextmanager
def zeroed(model: Any, table: nn.Module) -> Iterator[None]:
    """Let a model's table be zeros for a while; what it remembers of it is forgotten."""
    kept = {
        name: getattr(table, name).detach().clone()
        for name in ("weight", "values", "present")
        if isinstance(getattr(table, name, None), Tensor)
    }
    handle = table.register_forward_hook(_nothing)  # for features that stay in their file
    try:
        with torch.no_grad():
            for name in kept:
                getattr(table, name).zero_()
        forget(model)
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for name, value in kept.items():
                getattr(table, name).copy_(value)
        forget(model)


def forget(model: Any) -> None:
    """Drop what a model remembers of its last evaluation: RecBole's graph models, and ours."""
    for name in getattr(model, "other_parameter_name", ()):
        if name.startswith("restore_"):
            setattr(model, name, None)
    model.train()
    model.eval()


def _nothing(module: nn.Module, _: Any, output: Any) -> Any:
    if isinstance(module, FeatureSource):
        values, mask = output
        return torch.zeros_like(values), torch.zeros_like(mask)
    return torch.zeros_like(output)
