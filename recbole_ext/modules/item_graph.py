"""The frozen graph of items that are alike in their features (Zhou and Shen, FREEDOM, MM 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_ext.index.brute_force import BruteForceIndex
from recbole_ext.modules.graph_conv import SparseGraph, csr_of


def nearest(values: Tensor, present: Tensor, k: int) -> Tensor:
    """Return the k nearest items of each item by cosine, itself among them.

    Searched a part of the items at a time: the matrix of all similarities is never held.

    Args:
        values: Vectors [N, F].
        present: Which items have one [N]; others are nobody's neighbours and have none.
        k: How many; all that there are where they are fewer.

    Returns:
        Rows and columns of the graph's cells, [2, n k].
    """
    ids = present.nonzero().squeeze(1)  # [n]
    vectors = values[ids]  # [n, F]
    _, near = BruteForceIndex(vectors).search(vectors, min(k, len(ids)))  # [n, k]
    return torch.stack([ids.repeat_interleave(near.shape[1]), ids[near].flatten()])


def item_graph(features: Sequence[tuple[Tensor, Tensor, float]], k: int) -> SparseGraph:
    """Return S = sum_m w_m S_m: S_m has 1/k where an item is among the k nearest by modality m.

    The weights of an item are those of what it has, brought to the sum of 1: without an image its
    neighbours are those of its text alone. An item without any has no neighbours, not even itself.

    Args:
        features: Of each modality vectors [N, F_m], which items have one [N], and w_m.
        k: Neighbours of an item, itself included.
    """
    features = [one for one in features if one[2] > 0]
    total = torch.stack([present * weight for _, present, weight in features]).sum(0)  # [N]
    cells, shares = [], []
    for values, present, weight in features:
        found = nearest(values, present, k)  # [2, n k]
        n_near = min(k, int(present.sum()))
        cells.append(found)
        shares.append(weight / (total[found[0]] * n_near))  # [n k]
    (rows, cols), values = torch.cat(cells, 1), torch.cat(shares)  # [E] each
    n_items = len(total)
    return SparseGraph(csr_of(rows, cols, values, n_items), csr_of(cols, rows, values, n_items))
