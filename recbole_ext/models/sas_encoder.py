"""SASRec's encoder, built from the settings that every model with one shares."""

from __future__ import annotations

from typing import Any

from recbole_ext.modules.transformer import SASEncoder

SETTINGS = (
    "hidden_size",
    "n_layers",
    "n_heads",
    "inner_size",
    "hidden_dropout_prob",
    "attn_dropout_prob",
    "hidden_act",
    "layer_norm_eps",
    "initializer_range",
)
"""Settings that are the encoder's arguments, by the same names."""


def build_sas_encoder(config: Any, n_items: int, max_length: int) -> SASEncoder:
    """Return the encoder with fresh weights.

    Args:
        config: The run's settings.
        n_items: Items, the padding item included.
        max_length: Longest history.

    Raises:
        UserError: A setting makes no sense; the message names it.
    """
    sizes = {key: config[key] for key in SETTINGS}
    return SASEncoder(n_items=n_items, max_length=max_length, **sizes)
