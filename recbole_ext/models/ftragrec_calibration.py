"""Chooses how FTRagRec's scores are mixed, on validation."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_ext.index.interface import evenly_spaced
from recbole_ext.modules import calibration
from recbole_ext.modules.evaluating import evaluating
from recbole_ext.modules.mixing import MixSettings
from recbole_ext.modules.retrieval_mix import item_logits
from recbole_ext.types import UserError

if TYPE_CHECKING:
    from recbole_ext.models.sequential.ftragrec import FTRagRec

logger = getLogger(__name__)

ROWS = 1024
CELLS = 1 << 24
"""So many validation rows, but no more scores, are ranked at a time (64 MiB, and copies)."""
FEWEST_ROWS = 100
"""Validation rows below which no tenth of ``calibrate_users`` is taken."""
DISTRIBUTIONS = ("log_linear", "probability")
"""Mixes whose ranks under all choices come from one scoring."""


@torch.no_grad()
def calibrate_mix(model: FTRagRec, valid_data: Any) -> dict[str, float]:
    """Choose alpha, the number of neighbours, the temperature and the smoothing.

    The best of ``model.calibrate_grid`` (see :func:`~recbole_ext.modules.calibration.best_choice`),
    on up to ``calibrate_users`` evenly spaced validation rows (for ``vector`` and ``gate``, which
    score all items for every choice, a tenth of them where that is 100 or more). The choice is kept
    in the state dict; training does not depend on it.

    Returns:
        The choice, its NDCG@10 and recall@20, and those of the encoder alone where the grid has
        alpha 0.

    Raises:
        UserError: The scores are not numbers.
    """
    mix = model.retrieval
    alphas, top_ks, temperatures, smoothings = model.calibrate_grid
    choices = calibration.grid(
        alphas if mix.gate is None else [mix.train_alpha],
        [min(k, mix.top_k) for k in top_ks],
        [*temperatures, float(mix.retriever.temperature)],
        smoothings,
    )
    rows, n_rows = valid_data._dataset.inter_feat, model.calibrate_users
    if mix.mix not in DISTRIBUTIONS:
        n_rows = max(n_rows // 10, min(n_rows, FEWEST_ROWS))
    rows = rows[evenly_spaced(len(rows), n_rows)]  # n rows
    queries, memory = rows.to(model.item_weight.device), model.keeper.scoring()
    with evaluating(model):
        states = [model.encode(queries[part]) for part in torch.arange(len(rows)).split(ROWS)]
        h = torch.cat(states)  # [n, D]
        # all at once: an index searches for many queries in less time each
        similarity, near = model.search(h, queries, memory, mix.top_k)  # [n, top_k] each
        size = min(ROWS, max(1, CELLS // model.n_items))
        parts = [
            _ranks(model, rows[part], h[part], similarity[part], near[part], choices, valid_data)
            for part in torch.arange(len(rows)).split(size)
        ]  # of [choices, b]
    ranks = torch.cat(parts, dim=1)  # [choices, n]
    best = calibration.best_choice(choices, ranks)
    _tell_of_edges(choices, best)
    mix.use(choices[best])
    model.is_calibrated = True
    ndcg = calibration.ndcg(ranks, 10).double().mean(1).tolist()
    recall = calibration.recall(ranks, 20).tolist()
    found = {**mix.settings(), "ndcg@10": ndcg[best], "recall@20": recall[best]}
    if choices[0].alpha == 0:
        found.update({"ndcg@10_alone": ndcg[0], "recall@20_alone": recall[0]})
    return found


def _tell_of_edges(choices: Sequence[MixSettings], best: int) -> None:
    """Say where the choice is the last of several values of its grid, but for alpha 0."""
    if choices[best].alpha == 0:
        return
    edges = []
    for name in ("alpha", "top_k", "temperature", "smoothing"):
        values = [getattr(one, name) for one in choices if one.alpha]
        value = getattr(choices[best], name)
        if len(set(values)) > 1 and value in (min(values), max(values)):
            edges.append(f"{name} {value:g}")
    if edges:
        logger.info("at the end of the grid: %s; calibrate_* may hold more", ", ".join(edges))


def _ranks(
    model: FTRagRec,
    batch: Any,
    h: Tensor,
    similarity: Tensor,
    near: Tensor,
    choices: Sequence[MixSettings],
    valid_data: Any,
) -> Tensor:
    """Return the rank of each target under each choice, [choices, B].

    Args:
        model: The model.
        batch: Validation rows.
        h: Their states [B, D].
        similarity: Of their neighbours [B, top_k].
        near: Places of their neighbours [B, top_k].
        choices: Ways to mix.
        valid_data: Validation loader, which may know what its users had.
    """
    hidden, mix, memory = _hidden(model, batch, valid_data), model.retrieval, model.keeper.scoring()
    found = mix.find(similarity, near, memory, mix.for_losses())  # all top_k of them
    held_out = calibration.HeldOut(
        item_logits(h, model.item_weight),
        similarity.masked_fill(~found.valid, -torch.inf),
        found.targets,
        batch[model.POS_ITEM_ID].to(h.device),
        None if hidden is None else hidden.to(h.device),
    )
    if held_out.logits.isnan().any() or similarity.isnan().any():
        raise UserError(
            "FTRagRec: the scores of validation rows are not numbers (NaN): training has "
            "diverged; lower learning_rate or set clip_grad_norm"
        )
    if mix.mix in DISTRIBUTIONS:
        return calibration.mixture_ranks(held_out, choices, mix.mix)
    ranks = []
    for one in choices:
        found = mix.find(similarity, near, memory, one)
        scores = mix.scores(h, found, model.item_weight)  # [B, N]
        scores = calibration.hide(scores, held_out)
        ranks.append(calibration.score_ranks(scores, held_out.labels))
    return torch.stack(ranks)


def _hidden(model: FTRagRec, batch: Any, valid_data: Any) -> Tensor | None:
    """Return the items that the evaluation leaves out [B, L], 0 for none, or ``None``."""
    if not model.mask_history:
        return None
    history = getattr(valid_data, "history", None)
    if history is None:
        return batch[model.ITEM_SEQ]
    # all that the user had before, of which ITEM_SEQ is only the end
    found, items = history.index(batch[model.USER_ID], batch[model.POS_ITEM_ID])  # [pairs]
    parts = items.split(found.bincount(minlength=len(batch)).tolist())  # B x [items]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)  # [B, L]
