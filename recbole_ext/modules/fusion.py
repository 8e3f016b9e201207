"""Several modalities of an item as one vector: ``late``, ``early``, ``cross_modal``, ``token``.

Each modality comes as tokens [B, T, D] with a mask [B, T]; one vector is one token, and an item
without the modality has no token that counts. Nothing is ever a vector of zeros: what is missing
takes no part, and an item of which all is missing has a learned vector.

Every fusion begins near a mean of what is there, so that an untrained one keeps the geometry of its
features: the branches beside the residual are small at first, and there is no LayerNorm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.cross_attention import CrossAttention
from recbole_ext.modules.pooling import TokenPooling, masked_softmax
from recbole_ext.types import UserError, suggest

FUSIONS = ("late", "early", "cross_modal", "token")
LATES = ("gate", "concat", "attention")
BRANCH_STD = 0.02
"""Standard deviation of the weights of a branch beside the residual."""


def check_fusion(kind: str, late: str) -> None:
    """Refuse words that name no fusion.

    Raises:
        UserError: Naming the setting and what it takes.
    """
    if kind not in FUSIONS:
        raise UserError(f"fusion: '{kind}' is none of {', '.join(FUSIONS)}{suggest(kind, FUSIONS)}")
    if late not in LATES:
        raise UserError(f"late: '{late}' is none of {', '.join(LATES)}{suggest(late, LATES)}")


def build_fusion(
    kind: str,
    n_tokens: Sequence[int],
    hidden_size: int,
    *,
    late: str = "gate",
    n_heads: int = 1,
    attn_dropout_prob: float = 0.0,
    pooling: str = "attention",
    use_id_key: bool = False,
) -> nn.Module:
    """Return the fusion of a name; of one modality there is nothing to fuse.

    Args:
        kind: One of :data:`FUSIONS`.
        n_tokens: Most tokens of each modality [M]; for ``cross_modal`` and ``token`` these are text
            and image.
        hidden_size: D.
        late: One of :data:`LATES`, for ``late``.
        n_heads: Attention heads.
        attn_dropout_prob: Dropout of the attention probabilities.
        pooling: See :class:`~recbole_ext.modules.pooling.TokenPooling`.
        use_id_key: Whether the item's own vector is a key too, for ``cross_modal``.

    Raises:
        UserError: A name that is none, or an attention over a single key.
    """
    check_fusion(kind, late)
    if len(n_tokens) == 1:
        return OneModality(hidden_size, n_tokens[0], pooling)
    if kind == "late":
        return LateFusion(hidden_size, n_tokens, late, pooling)
    if kind in ("cross_modal", "token") and len(n_tokens) != 2:
        raise UserError(f"fusion: {kind} takes text and image, not {len(n_tokens)} modalities")
    attention = {"n_heads": n_heads, "attn_dropout_prob": attn_dropout_prob}
    if kind == "early":
        return EarlyFusion(hidden_size, len(n_tokens), pooling, attention)
    keys = n_tokens if kind == "cross_modal" else n_tokens[1:]
    check_keys(kind, [n + (use_id_key and kind == "cross_modal") for n in keys])
    if kind == "cross_modal":
        return CrossModalFusion(hidden_size, n_tokens, pooling, attention, use_id_key)
    return TokenFusion(hidden_size, n_tokens[0], pooling, attention)


def check_keys(kind: str, n_keys: Sequence[int]) -> None:
    """Refuse an attention over a single key.

    Raises:
        UserError: Naming the fusion and what it needs.
    """
    if min(n_keys) < 2:
        remedy = ", set use_id_key: True (keys [global, id])" if kind == "cross_modal" else ""
        raise UserError(
            f"fusion: {kind} would attend over a single key, which is the identity and gives its "
            "queries and keys no gradient; name features with tokens or patches (several vectors "
            f"for an item){remedy}, or take fusion: late"
        )


def missing_vector(*shape: int) -> nn.Parameter:
    """Return a learned stand-in [..., D] for what is missing, of length about one."""
    return nn.Parameter(torch.randn(*shape) / math.sqrt(shape[-1]))


def _pools(hidden_size: int, n_tokens: Sequence[int], pooling: str) -> nn.ModuleList:
    """Return a pooling for each modality [M]; one token needs no weights."""
    return nn.ModuleList(TokenPooling(hidden_size, pooling if n > 1 else "mean") for n in n_tokens)


def _branch(hidden_size: int, attention: dict[str, Any]) -> CrossAttention:
    """Return an attention that adds little to a residual at first."""
    made = CrossAttention(hidden_size, **attention)
    nn.init.normal_(made.dense.weight, std=BRANCH_STD)
    return made


class OneModality(nn.Module):
    """The vector of a single modality, or the learned one where it is missing."""

    def __init__(self, hidden_size: int, n_tokens: int, pooling: str) -> None:
        super().__init__()
        (self.pool,) = _pools(hidden_size, [n_tokens], pooling)
        self.missing = missing_vector(hidden_size)

    def forward(self, tokens: list[Tensor], masks: list[Tensor], id_emb: Tensor) -> Tensor:
        """Map [[B, T, D]] to [B, D]; see :class:`LateFusion`."""
        pooled = self.pool(tokens[0], masks[0])  # [B, D]
        return torch.where(masks[0].any(1, keepdim=True), pooled, self.missing)


class LateFusion(nn.Module):
    """One vector for each modality, put together at the end.

    ``gate``: weights from all of them, a softmax over those that are there. ``attention``: the same
    with a weight that each vector gets by itself. ``concat``: a linear map of [x_1, ..., x_M].
    """

    def __init__(
        self,
        hidden_size: int,
        n_tokens: Sequence[int],
        how: str = "gate",
        pooling: str = "attention",
    ) -> None:
        super().__init__()
        n = len(n_tokens)
        self.how = how
        self.pools = _pools(hidden_size, n_tokens, pooling)
        self.missing = missing_vector(n, hidden_size)  # [M, D]
        if how == "concat":
            self.mix = nn.Linear(n * hidden_size, hidden_size, bias=False)
            with torch.no_grad():
                self.mix.weight.copy_(torch.eye(hidden_size).repeat(1, n) / n)
            return
        self.mix = nn.Linear(
            n * hidden_size if how == "gate" else hidden_size, n if how == "gate" else 1, bias=False
        )
        nn.init.normal_(self.mix.weight, std=BRANCH_STD)

    def forward(self, tokens: list[Tensor], masks: list[Tensor], id_emb: Tensor) -> Tensor:
        """Fuse the modalities of items.

        Args:
            tokens: Of each modality [B, T, D].
            masks: Which of them count [B, T].
            id_emb: The items' own vectors [B, D]; not every fusion reads them.

        Returns:
            [B, D].
        """
        pooled = [pool(t, m) for pool, t, m in zip(self.pools, tokens, masks, strict=True)]
        present = torch.stack([mask.any(1) for mask in masks], 1)  # [B, M]
        x = torch.where(present.unsqueeze(-1), torch.stack(pooled, 1), self.missing)  # [B, M, D]
        if self.how == "concat":
            return self.mix(x.flatten(1))  # [B, D]
        logits = self.mix(x.flatten(1)) if self.how == "gate" else self.mix(x).squeeze(-1)  # [B, M]
        # what is missing has no weight, unless all is
        counts = present | ~present.any(1, keepdim=True)  # [B, M]
        return (masked_softmax(logits, counts).unsqueeze(1) @ x).squeeze(1)  # [B, D]


class EarlyFusion(nn.Module):
    """Self-attention over the tokens of all modalities together, then a pooling."""

    def __init__(
        self, hidden_size: int, n_modalities: int, pooling: str, attention: dict[str, Any]
    ) -> None:
        super().__init__()
        self.modality = nn.Parameter(torch.zeros(n_modalities, hidden_size))  # [M, D]
        self.attention = _branch(hidden_size, attention)
        self.pool = TokenPooling(hidden_size, pooling)
        self.missing = missing_vector(hidden_size)

    def forward(self, tokens: list[Tensor], masks: list[Tensor], id_emb: Tensor) -> Tensor:
        """Map [B, T, D] of each modality to [B, D]; see :class:`LateFusion`."""
        x = torch.cat([t + kind for t, kind in zip(tokens, self.modality, strict=True)], 1)
        mask = torch.cat(masks, 1)  # [B, S], S tokens of all modalities; x is [B, S, D]
        x = x + self.attention(x, x, mask)  # [B, S, D]
        return torch.where(mask.any(1, keepdim=True), self.pool(x, mask), self.missing)  # [B, D]


class CrossModalFusion(nn.Module):
    """Text attends to image and image to text, each with its residual; then a gate."""

    def __init__(
        self,
        hidden_size: int,
        n_tokens: Sequence[int],
        pooling: str,
        attention: dict[str, Any],
        use_id_key: bool,
    ) -> None:
        super().__init__()
        self.use_id_key = use_id_key
        self.text_to_image = _branch(hidden_size, attention)
        self.image_to_text = _branch(hidden_size, attention)
        self.late = LateFusion(hidden_size, n_tokens, "gate", pooling)

    def forward(self, tokens: list[Tensor], masks: list[Tensor], id_emb: Tensor) -> Tensor:
        """Map text [B, T, D] and image [B, P, D] to [B, D]; see :class:`LateFusion`."""
        text, image = tokens
        text_keys = self._keys(text, masks[0], id_emb)
        image_keys = self._keys(image, masks[1], id_emb)
        text = text + self.text_to_image(text, *image_keys)  # [B, T, D]
        image = image + self.image_to_text(image, *text_keys)  # [B, P, D]
        return self.late([text, image], masks, id_emb)  # [B, D]

    def _keys(self, tokens: Tensor, mask: Tensor, id_emb: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys [B, S, D] of a modality, the id among them if wanted, and their mask."""
        if not self.use_id_key:
            return tokens, mask
        keys = torch.cat([tokens, id_emb.unsqueeze(1)], 1)  # [B, T + 1, D]
        return keys, torch.cat([mask, mask.new_ones(len(mask), 1)], 1)  # [B, T + 1]


class TokenFusion(nn.Module):
    """Each of T text tokens attends to P patches; without text the mean of the patches does."""

    def __init__(
        self, hidden_size: int, n_tokens: int, pooling: str, attention: dict[str, Any]
    ) -> None:
        super().__init__()
        self.attention = _branch(hidden_size, attention)
        self.mean = TokenPooling(hidden_size, "mean")
        (self.pool,) = _pools(hidden_size, [n_tokens], pooling)
        self.missing = missing_vector(hidden_size)

    def forward(self, tokens: list[Tensor], masks: list[Tensor], id_emb: Tensor) -> Tensor:
        """Map text [B, T, D] and patches [B, P, D] to [B, D]; see :class:`LateFusion`."""
        (text, patches), (text_mask, patch_mask) = tokens, masks
        has_text = text_mask.any(1, keepdim=True)  # [B, 1]
        first = torch.arange(text.shape[1], device=text.device) == 0  # [T]
        stands_in = ~has_text & first  # [B, T]
        mean = self.mean(patches, patch_mask).unsqueeze(1)  # [B, 1, D]
        text = torch.where(stands_in.unsqueeze(-1), mean, text)  # [B, T, D]
        text = text + self.attention(text, patches, patch_mask)  # [B, T, D]
        some = has_text | patch_mask.any(1, keepdim=True)  # [B, 1]
        return torch.where(some, self.pool(text, text_mask | stands_in), self.missing)  # [B, D]
