"""``item_init``: a stored feature in the item embedding of a model that has none of its own.

The embedding's weight becomes a function of the feature and of what is learned, so that a model
which looks items up, or multiplies by ``item_embedding.weight``, needs no change. It is reckoned
once for each use of the weight, [N, F] x [F, D] operations. (A parametrization of torch would do
the same, but a model with one cannot be pickled.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.data.features import load_vectors
from recbole_ext.types import UserError, suggest

HOWS = ("init", "add", "concat")
NAMES = ("item_embedding", "item_embeddings", "item_emb", "embed_item", "item_embedding_layer")
"""What RecBole's models call their table of items."""

ROWS = 1 << 14
"""Vectors that are held in double precision at once."""


def with_item_init(
    model: nn.Module, config: Any, dataset: Any, is_trained: bool = False
) -> nn.Module:
    """Return the model, its item embedding made of a feature where ``item_init`` says so.

    ``init``: the embedding starts from the feature's principal components. ``add``: weight =
    E + x P. ``concat``: weight = [E, x] P, P [D + F, D]. E is learned and so is P; items without
    the feature have E alone (with ``init``, what they would have had).

    Args:
        model: With a table of items.
        config: The run's settings.
        dataset: RecBole dataset.
        is_trained: Whether weights are loaded afterwards: then ``init`` does nothing, and needs no
            feature. The vectors of the other two are no weights, and are needed always.

    Raises:
        UserError: The setting cannot be meant, or the model has no table of items.
    """
    wanted = config["item_init"]
    if not wanted:
        return model
    feature, how = _checked(wanted)
    name, table = _item_table(model, dataset.item_num)
    if how == "init" and is_trained:
        return model
    vectors = load_vectors(config, dataset, feature, "item_init")  # [N, F]
    if how == "init":
        # what starts from a trained model has a trained table
        if not (getattr(type(model), "warm_start", None) and config["pretrained_path"]):
            start_from(table, vectors)
        return model
    if type(table) is not nn.Embedding:
        raise UserError(
            f"item_init: {name} of {config['model']} is a {type(table).__name__}, which makes its "
            "weight itself; use how: init"
        )
    parts = {"add": AddFeature, "concat": ConcatFeature}
    make_of_feature(table, parts[how](vectors, table.embedding_dim))
    return model


def check_item_init(wanted: Any) -> None:
    """Refuse a value of ``item_init`` that cannot be meant.

    Raises:
        UserError: Naming what it takes.
    """
    if wanted:
        _checked(wanted)


def _checked(wanted: Any) -> tuple[str, str]:
    example = "item_init: {feature: title, how: init}"
    if not isinstance(wanted, dict) or not isinstance(wanted.get("feature"), str):
        raise UserError(f"item_init takes a feature and how it is used, as {example}")
    for key in wanted.keys() - {"feature", "how"}:
        raise UserError(
            f"item_init has no '{key}'{suggest(key, ['feature', 'how'])}; write {example}"
        )
    how = wanted.get("how", "init")
    if how not in HOWS:
        raise UserError(
            f"item_init: how takes {', '.join(HOWS)}, not {how!r}{suggest(str(how), HOWS)}"
        )
    return wanted["feature"], how


def _item_table(model: nn.Module, n_items: int) -> tuple[str, nn.Embedding]:
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in NAMES
    }
    for name, module in found.items():
        if module.num_embeddings >= n_items:  # BERT4Rec has a row more, for the mask
            return name, module
    raise UserError(
        f"item_init: {type(model).__name__} has no table of {n_items} items (of the name "
        f"{', '.join(NAMES)}); it is for models with one, as SASRec, GRU4Rec and BPR"
    )


def principal_axes(x: Tensor, n_axes: int) -> Tensor:
    """Return the first principal axes of centred vectors, the strongest first, [F, size].

    They are the eigenvectors of X^T X, which is summed a part at a time: of a million items a
    singular value decomposition would hold several copies. Of an axis and its negative it is the
    one whose largest number is positive.

    Args:
        x: [n, F], of mean 0.
        n_axes: Most of them; ``size`` is also at most n and F.
    """
    squares = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)  # [F, F]
    for part in x.split(ROWS):
        squares += part.double().T @ part.double()
    axes = torch.linalg.eigh(squares)[1].flip(1)[:, : min(n_axes, *x.shape)]  # [F, size]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))  # [1, size]
    return (axes * largest.sign()).to(x)


@torch.no_grad()
def start_from(table: nn.Embedding, vectors: Tensor) -> None:
    """Let a table start from the principal components of vectors, as large as it was on average.

    Args:
        table: [N', D], N' at least N.
        vectors: [N, F]; rows of zeros have no feature and stay as they are, as does row 0, and a
            single row that has one.
    """
    rows = vectors.abs().sum(1).nonzero().squeeze(1)  # [n]
    rows = rows[rows > 0]
    if len(rows) < 2:  # one has no components: its distance to the mean is nothing
        return
    x = vectors[rows]  # [n, F]
    x -= x.mean(0)
    found = x @ principal_axes(x, table.embedding_dim)  # [n, size]
    size = found.shape[1]
    found *= table.weight[rows].std() / found.std().clamp_min(1e-12)
    table.weight[rows] = 0
    table.weight[rows[:, None], torch.arange(size, device=rows.device)] = found


class FeatureEmbedding(nn.Embedding):
    """A table whose weight is made of a learned table and of a feature.

    Attributes:
        learned: E [N', D].
        of_feature: E -> the weight [N', D].
    """

    learned: nn.Parameter
    of_feature: nn.Module

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight [N', D], reckoned anew."""
        return self.of_feature(self.learned)


def make_of_feature(table: nn.Embedding, of_feature: nn.Module) -> None:
    """Let a table make its weight of a feature, where it stands: others may refer to it.

    Args:
        table: E becomes what it has learned so far.
        of_feature: E [N', D] -> the weight [N', D].
    """
    learned = table._parameters.pop("weight")
    table.__class__ = FeatureEmbedding
    table.register_parameter("learned", learned)
    table.add_module("of_feature", of_feature)


class _OfFeature(nn.Module):
    """Vectors [N, F] of unit length, and zeros where an item has none."""

    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", nn.functional.normalize(vectors, dim=1), persistent=False)

    def _for(self, table: Tensor) -> Tensor:
        """Return the vectors with as many rows as a table: a row more is that of a mask."""
        more = len(table) - len(self.vectors)
        return nn.functional.pad(self.vectors, (0, 0, 0, more))  # [N', F]


class AddFeature(_OfFeature):
    """E + x P.

    Args:
        vectors: [N, F], zeros where an item has none.
        size: D.
    """

    def __init__(self, vectors: Tensor, size: int) -> None:
        super().__init__(vectors)
        self.project = nn.Linear(vectors.shape[1], size, bias=False)
        nn.init.normal_(self.project.weight, std=0.02)

    def forward(self, table: Tensor) -> Tensor:
        """Return the weight [N', D] for the learned table E [N', D]."""
        return table + self.project(self._for(table))  # [N', D]


class ConcatFeature(_OfFeature):
    """[E, x] P, which begins as E and a little of x.

    Args:
        vectors: [N, F], zeros where an item has none.
        size: D.
    """

    def __init__(self, vectors: Tensor, size: int) -> None:
        super().__init__(vectors)
        self.project = nn.Linear(size + vectors.shape[1], size, bias=False)
        nn.init.normal_(self.project.weight, std=0.02)
        with torch.no_grad():
            self.project.weight[:, :size] = torch.eye(size)

    def forward(self, table: Tensor) -> Tensor:
        """Return the weight [N', D] for the learned table E [N', D]."""
        return self.project(torch.cat([table, self._for(table)], dim=1))  # [N', D]
