"""Entities that news name, and MIND's stored vectors of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.types import UserError

ENTITY_VECTORS = "entity_embedding.vec"
"""MIND's file of entities and their vectors (TransE on Wikidata), beside the data."""


def entity_members(dataset: Any, field: str) -> tuple[Tensor, np.ndarray]:
    """Return the entities of each news [N, W], 0 is none, and the entities' tokens [E]."""
    return dataset.item_feat[field], dataset.field2id_token[field]


def stored_entities(config: Any, tokens: np.ndarray) -> Tensor | None:
    """Return the stored vectors of entities [E, F], zeros of those without one; or ``None``.

    ``entity_vectors: auto`` takes the file beside the data where there is one.

    Args:
        config: The run's settings.
        tokens: Of the entities [E].

    Raises:
        UserError: The file that is named is not there or malformed, or has none of the entities.
    """
    given = config["entity_vectors"]
    if given is None:
        return None
    beside = Path(config["data_path"]) / ENTITY_VECTORS
    path = beside if given == "auto" else Path(given)
    if given == "auto" and not path.is_file():
        return None
    found = read_entity_vectors(path, tokens)
    n_known, n = int(found.any(1).sum()), len(tokens) - 1
    if n_known == 0:
        raise UserError(
            f"entity_vectors: {path} has none of the {n} entities of '{config['dataset']}', as "
            f"{tokens[-1]}; name another file, or set entity_vectors: ~"
        )
    logging.getLogger().info("entity vectors: %d of %d entities, %s", n_known, n, path)
    return found


def read_entity_vectors(path: Path, tokens: np.ndarray) -> Tensor:
    """Read the vectors of some entities from MIND's file, [E, F], zeros where it has none.

    A line is a token and its numbers, with tabs between them.

    Raises:
        UserError: Naming the file and the line.
    """
    row_of = {str(token): row for row, token in enumerate(tokens)}
    vectors: dict[int, np.ndarray] = {}
    size = 0
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                token, *numbers = line.rstrip().split("\t")
                if token not in row_of:
                    continue
                try:
                    vector = np.array(numbers, dtype=np.float32)  # [F]
                except ValueError:
                    vector = np.array([np.nan], dtype=np.float32)
                size = size or len(vector)
                if not len(vector) or len(vector) != size or not np.isfinite(vector).all():
                    raise UserError(
                        f"{path}, line {number}: no token and {size or 100} numbers with tabs "
                        "between them; take MIND's entity_embedding.vec"
                    )
                vectors[row_of[token]] = vector
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"entity_vectors: cannot read {path}: {error}; name MIND's entity_embedding.vec, or "
            "set entity_vectors: ~"
        ) from None
    found = np.zeros((len(tokens), size), dtype=np.float32)  # [E, F]
    for row, vector in vectors.items():
        found[row] = vector
    return torch.from_numpy(found)
