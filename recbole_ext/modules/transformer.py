"""The Transformer encoder of SASRec and DuoRec, with the parameter names of RecBole's own.

Three things make it fast and change no number: sequences are trimmed to the longest of the batch,
the query, key and value projections are one product, and the last block computes only the position
that is read out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from recbole_ext.modules.attention import TransformerLayer, check_stack
from recbole_ext.modules.dropout import Dropout

CHUNK_ITEMS = 3200
"""Items, padding included, that are encoded together on a CPU: what fits its caches."""


class TransformerBlocks(nn.Module):
    """The stack of blocks; its list is called ``layer`` as in RecBole."""

    def __init__(self, blocks: list[TransformerLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(blocks)

    def forward(self, x: Tensor, last: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map [B, L, D] to all states [B, L, D], or to those [B, D] at ``last`` [B].

        ``mask`` [B, 1, 1 or L, L] says which positions are attended to, instead of the causal mask.
        """
        for block in self.layer[:-1]:
            x = block(x, mask=mask)  # [B, L, D]
        if last is None:
            return self.layer[-1](x, mask=mask)  # [B, L, D]
        return self.layer[-1](x, last, mask).squeeze(1)  # [B, D]


class SASEncoder(nn.Module):
    """Item sequence -> state, as in SASRec (Kang and McAuley, ICDM 2018, arXiv:1808.09781).

    Item plus position embedding, LayerNorm, dropout, then post-LN Transformer blocks under a causal
    mask. Sequences are left-aligned and padded with item 0 on the right.

    Args:
        n_items: Items, the padding item 0 included.
        hidden_size: D.
        n_layers: Transformer blocks, at least one.
        n_heads: Attention heads; they divide ``hidden_size``.
        inner_size: Width of the feed-forward part.
        hidden_dropout_prob: Dropout of embeddings and of both block outputs.
        attn_dropout_prob: Dropout of the attention probabilities.
        hidden_act: One of ``gelu``, ``relu``, ``swish``, ``tanh``, ``sigmoid``.
        layer_norm_eps: Added to the variance in every LayerNorm.
        max_length: Longest sequence that has position embeddings.
        initializer_range: Standard deviation of the initial weights.

    Raises:
        UserError: An argument makes no sense; the message names it.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        n_layers: int = 2,
        n_heads: int = 2,
        inner_size: int = 256,
        hidden_dropout_prob: float = 0.5,
        attn_dropout_prob: float = 0.5,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        max_length: int = 50,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        check_stack(n_layers, initializer_range)
        self.item_embedding = nn.Embedding(n_items, hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)
        self.trm_encoder = TransformerBlocks(
            [
                TransformerLayer(
                    hidden_size=hidden_size,
                    n_heads=n_heads,
                    inner_size=inner_size,
                    hidden_dropout_prob=hidden_dropout_prob,
                    attn_dropout_prob=attn_dropout_prob,
                    hidden_act=hidden_act,
                    layer_norm_eps=layer_norm_eps,
                )
                for _ in range(n_layers)
            ]
        )
        self.initializer_range = initializer_range
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights from N(0, initializer_range); the padding row and all biases are zero."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(0.0, self.initializer_range)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
        self.item_embedding.weight[0].zero_()  # stays zero: padding_idx gives this row no gradient

    def embed(self, item_seq: Tensor) -> Tensor:
        """Return the input of the blocks before dropout: [B, L] item ids -> [B, L, D]."""
        return self.embed_items(self.item_embedding(item_seq))

    def embed_items(self, item_emb: Tensor) -> Tensor:
        """Return the input of the blocks before dropout: item embeddings [B, L, D] -> the same."""
        position_emb = self.position_embedding.weight[: item_emb.size(1)]  # [L, D]
        return self.LayerNorm(item_emb + position_emb)  # [B, L, D]

    def encode_embedded(self, embedded: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state at the last position of each row of :meth:`embed`'s output.

        Called twice, it gives two views of the same sequences under two dropout masks.

        Args:
            embedded: [B, L, D].
            item_seq_len: [B], each in 1..L.

        Returns:
            [B, D].
        """
        return self.trm_encoder(self.dropout(embedded), item_seq_len - 1)

    def states(self, item_seq: Tensor) -> Tensor:
        """Return the state of every prefix, [B, L] -> [B, L, D]; junk at padded positions."""
        return self.trm_encoder(self.dropout(self.embed(item_seq)))

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state after the last item.

        Args:
            item_seq: [B, L], left-aligned, padded with 0.
            item_seq_len: [B], each in 1..L.

        Returns:
            [B, D].
        """
        return by_length(self._encode, item_seq, item_seq_len)

    def _encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return self.encode_embedded(self.embed(item_seq), item_seq_len)  # [B, D]


def by_length(
    encode: Callable[[Tensor, Tensor], Tensor], item_seq: Tensor, item_seq_len: Tensor
) -> Tensor:
    """Encode sequences without most of their padding.

    On a CPU padding costs as much as items do, and what is larger than its caches costs more: rows
    of like length are encoded together, few enough for the caches. Elsewhere the padding that all
    rows share is cut off.

    Args:
        encode: Maps ([b, longest], [b]) to [b, ...], each row for itself.
        item_seq: [B, L], padded with 0 on the right.
        item_seq_len: [B], each in 1..L.

    Returns:
        [B, ...], the rows in the order of ``item_seq``.
    """
    if item_seq.device.type != "cpu" or item_seq.numel() <= CHUNK_ITEMS:
        return encode(trim(item_seq, item_seq_len), item_seq_len)
    order = item_seq_len.argsort(stable=True)  # [B], short ones first
    item_seq, item_seq_len = item_seq[order], item_seq_len[order]
    parts = [
        encode(trim(seq, lengths), lengths)
        for seq, lengths in zip(
            *(x.split(_chunk_rows(item_seq_len.tolist())) for x in (item_seq, item_seq_len)),
            strict=True,
        )
    ]
    return torch.cat(parts)[order.argsort()]  # [B, ...]


def _chunk_rows(lengths: list[int]) -> list[int]:
    """Return how many rows to encode together; ``lengths`` ascend."""
    sizes, begin, last = [], 0, len(lengths) - 1
    while begin <= last:
        at_most = max(1, CHUNK_ITEMS // max(1, lengths[begin]))
        rows = max(1, CHUNK_ITEMS // max(1, lengths[min(last, begin + at_most - 1)]))
        sizes.append(min(rows, last + 1 - begin))
        begin += sizes[-1]
    return sizes


def trim(item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
    """Cut the columns [B, L] that are padding in every row: [B, longest], at least one.

    The longest length is read from the device: on a GPU this waits for what is queued there.
    """
    return item_seq[:, : max(1, int(item_seq_len.max()))]


def encoder_keys(state_dict: Mapping[str, Tensor], prefix: str = "encoder.") -> dict[str, Tensor]:
    """Rename the encoder's parameters in a checkpoint of RecBole's SASRec or the original DuoRec.

    Both keep ``item_embedding.weight``, ``trm_encoder.layer.0...`` at the top of the model; here
    they belong to a sub-module. All other keys, and those that are named our way already, stay as
    they are.

    Args:
        state_dict: Parameters by their foreign names.
        prefix: Name of the encoder in our model, with its dot.

    Returns:
        The same tensors by our names.
    """
    parts = ("item_embedding.", "position_embedding.", "LayerNorm.", "trm_encoder.")
    return {
        prefix + key if key.startswith(parts) else key: value for key, value in state_dict.items()
    }
