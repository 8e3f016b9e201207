"""The two parts of UR4Rec, built from its settings, and its items as both of them see these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.models.sas_encoder import build_sas_encoder
from recbole_ext.modules.bert_init import bert_folder, bert_sizes, load_bert
from recbole_ext.modules.gru import GRUEncoder
from recbole_ext.modules.proxy_retriever import ProxyRetriever, RetrieverBlock
from recbole_ext.modules.transformer import SASEncoder
from recbole_ext.types import UserError


def build_backbone(config: Any, n_items: int, max_length: int) -> SASEncoder | GRUEncoder:
    """Return the sequential encoder that ``backbone`` names.

    Args:
        config: The run's settings.
        n_items: Items, the padding item included.
        max_length: Longest history.
    """
    if config["backbone"] == "GRU4Rec":
        return GRUEncoder(
            n_items=n_items,
            hidden_size=config["hidden_size"],
            inner_size=config["gru_size"],
            n_layers=config["n_layers"],
            dropout_prob=config["hidden_dropout_prob"],
        )
    return build_sas_encoder(config, n_items, max_length)


def build_retriever(config: Any, memory_size: int) -> ProxyRetriever:
    """Return the retriever, of the settings' sizes or of a BERT's, as which it begins then.

    Args:
        config: The run's settings.
        memory_size: Width of the texts' vectors.

    Raises:
        UserError: The BERT cannot be read, or has fewer layers.
    """
    folder = bert_folder(config["retriever_init"]) if config["retriever_init"] else None
    n_layers, dropout = config["retriever_layers"], config["retriever_dropout_prob"]
    if folder is None:
        sizes = {
            "hidden_size": config["retriever_size"],
            "n_heads": config["retriever_heads"],
            "inner_size": config["retriever_inner_size"],
            "hidden_act": config["hidden_act"],
            "layer_norm_eps": config["layer_norm_eps"],
        }
    else:
        sizes = bert_sizes(folder)
        most = sizes.pop("n_layers")
        if n_layers > most:
            raise UserError(
                f"retriever_layers: {n_layers}, and the BERT in {folder} has {most}; take as many "
                "or fewer"
            )
    blocks = [
        RetrieverBlock(
            memory_size=memory_size,
            hidden_dropout_prob=dropout,
            attn_dropout_prob=dropout,
            **sizes,
        )
        for _ in range(n_layers)
    ]
    retriever = ProxyRetriever(
        blocks,
        n_proxies=config["n_proxies"],
        hidden_size=sizes["hidden_size"],
        item_size=config["hidden_size"],
        hidden_dropout_prob=dropout,
        layer_norm_eps=sizes["layer_norm_eps"],
    )
    if folder is not None:
        load_bert(retriever.layer, retriever.LayerNorm, folder)
    return retriever


@dataclass
class Retrieved:
    """A training batch, encoded once for all that is computed of it.

    Attributes:
        user: The backbone's states [B, D].
        vectors: Its item embeddings [N, D].
        candidates: Ids of items that are to be scored [B, C], if any are.
        queries: The proxies [B, K, d].
        memory: What they asked, Z [B, m, F].
        mask: What of it counts [B, m].
    """

    user: Tensor
    vectors: Tensor
    candidates: Tensor | None
    queries: Tensor
    memory: Tensor
    mask: Tensor


class ItemKeys(nn.Module):
    """Item ids -> the keys of the contrast L_CL: the backbone's embeddings, by the retriever.

    Args:
        table: The backbone's item embeddings.
        retriever: Maps them without a memory.
    """

    def __init__(self, table: nn.Embedding, retriever: ProxyRetriever) -> None:
        super().__init__()
        self.table, self.retriever = table, retriever

    def forward(self, ids: Tensor) -> Tensor:
        """Return the keys of items, of unit length, [n] -> [n, d]."""
        return F.normalize(self.retriever.encode_items(self.table(ids)), dim=-1)
