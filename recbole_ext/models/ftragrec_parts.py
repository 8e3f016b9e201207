"""The parts of FTRagRec beside its encoder, built from its settings."""

from __future__ import annotations

from typing import Any

from torch import nn

from recbole_ext.models.ftragrec_settings import alpha_of, train_alpha_of
from recbole_ext.modules.big_tensor import Room
from recbole_ext.modules.memory import MemoryRows
from recbole_ext.modules.memory_keeper import MemoryKeeper
from recbole_ext.modules.retrieval_mix import KLTerm, Quality, RetrievalMix
from recbole_ext.modules.retriever import Retriever


def build_retrieval(config: Any) -> RetrievalMix:
    """Return the retriever, and how what it finds is mixed in."""
    retriever = Retriever(
        config["hidden_size"],
        n_layers=config["retriever_layers"],
        inner_size=config["retriever_inner_size"],
        temperature=config["retriever_temperature"],
        learn_temperature=config["learn_temperature"],
    )
    return RetrievalMix(
        retriever,
        mix=config["mix"],
        alpha=alpha_of(config),
        train_alpha=train_alpha_of(config),
        smoothing=config["smoothing"],
        top_k=config["top_k"],
        kl=KLTerm(config["kl_small_weight"], config["kl_target"], config["kl_temperature"]),
        quality=Quality(config["quality_threshold"], config["quality_percentile"]),
    )


def build_keeper(
    config: Any, rows: MemoryRows, encoder: nn.Module, view: nn.Module, *, is_frozen: bool
) -> MemoryKeeper:
    """Return the keeper of the memories.

    Args:
        config: The run's settings.
        rows: What is remembered.
        encoder: Makes the states.
        view: Maps states to the space of retrieval.
        is_frozen: Whether the encoder never trains.
    """
    return MemoryKeeper(
        rows,
        encoder,
        view,
        snapshot_encoder=not is_frozen,
        index_kind=config["index"] if config["neighbours"] == "nearest" else None,
        n_probe=config["n_probe"],
        policy=config["exclude"],
        seed=config["seed"],
        room=Room(config["memory_limit_mib"], config["memory_dir"]),
    )
