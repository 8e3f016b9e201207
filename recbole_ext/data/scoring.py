"""How many users are scored at a time, and which models score all items as they score pairs."""

from __future__ import annotations

from typing import Any

from recbole.utils import EvaluatorType, ModelType

SEQUENTIAL = frozenset(
    """BERT4Rec Caser FDSA FEARec FOSSIL FPMC GCSAN GRU4Rec GRU4RecF HGN HRM LightSANs NARM
    NextItNet NPE RepeatNet SASRec SASRecF SINE SRGNN STAMP TransRec""".split()
)
GENERAL = frozenset(
    """AsymKNN BPR CDAE DGCF EASE ItemKNN LightGCN LINE MultiDAE MultiVAE NCEPLRec NCL NGCF SGL
    SimpleX SLIMElastic""".split()
)
"""RecBole's models whose ``full_sort_predict`` gives what ``predict`` gives, pair by pair; that of
the general ones holds not much more than its result. Every name is tested. What is missing: CORE,
FISM and SHAN (the two differ), and models that draw, that have no ``full_sort_predict``, whose
``full_sort_predict`` goes through all pairs, or that need more than interactions."""

_BYTES = 4
"""Of a score."""


def scores_all(config: Any) -> bool:
    """Say whether all items may be scored at once where only some are wanted.

    It holds for our own models, whose contract is tested, and for :data:`SEQUENTIAL` and
    :data:`GENERAL`; not for models of a user's own.
    """
    module = config.model_class.__module__
    return module.startswith("recbole_ext.models.") or (
        module.startswith("recbole.model.") and config["model"] in SEQUENTIAL | GENERAL
    )


def scores_once(config: Any) -> bool:
    """Say whether a sampled evaluation scores all items and takes the candidates out of them."""
    ranking = config["eval_type"] == EvaluatorType.RANKING
    return ranking and config["transform"] is None and scores_all(config)


def users_at_a_time(config: Any, n_items: int) -> int:
    """Return how many rows [B, N] of scores ``eval_memory_mib`` has room for.

    Of histories there are at most ``eval_batch_size``: an encoder holds more than the scores.
    """
    rows = max(1, int(config["eval_memory_mib"] * (1 << 20)) // (_BYTES * n_items))
    is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    return min(rows, config["eval_batch_size"]) if is_sequential else rows
