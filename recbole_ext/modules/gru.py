"""The GRU encoder of GRU4Rec, with the parameter names of RecBole's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_ext.modules.attention import gather_positions
from recbole_ext.modules.dropout import Dropout


class GRUEncoder(nn.Module):
    """Item sequence -> state, as in GRU4Rec (Tan et al., DLRS 2016, arXiv:1606.08117).

    It is called as :class:`~recbole_ext.modules.transformer.SASEncoder` is.

    Args:
        n_items: Items, the padding item 0 included.
        hidden_size: D, of the embeddings and of what comes out.
        inner_size: Width of the GRU's state.
        n_layers: Layers of the GRU.
        dropout_prob: Dropout of the embeddings.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        inner_size: int = 128,
        n_layers: int = 1,
        dropout_prob: float = 0.3,
    ) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(n_items, hidden_size, padding_idx=0)
        self.emb_dropout = Dropout(dropout_prob)
        self.gru_layers = nn.GRU(hidden_size, inner_size, n_layers, bias=False, batch_first=True)
        self.dense = nn.Linear(inner_size, hidden_size)
        nn.init.xavier_normal_(self.item_embedding.weight)
        for name, weight in self.gru_layers.named_parameters():
            if name.endswith("l0"):  # as RecBole does it
                nn.init.xavier_uniform_(weight)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    def embed_items(self, item_emb: Tensor) -> Tensor:
        """Return the input of the GRU before dropout: it is the item embeddings [B, L, D]."""
        return item_emb

    def encode_embedded(self, embedded: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state [B, D] at the last position of embeddings [B, L, D], lengths [B]."""
        states, _ = self.gru_layers(self.emb_dropout(embedded))  # [B, L, inner]
        return self.dense(gather_positions(states, item_seq_len - 1))  # [B, D]

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state after the last item: [B, L], [B] -> [B, D]."""
        return self.encode_embedded(self.embed_items(self.item_embedding(item_seq)), item_seq_len)
