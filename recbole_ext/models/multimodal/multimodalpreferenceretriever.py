"""MultimodalPreferenceRetriever: the two towers of TextPreferenceRetriever over text and images.

An item's text and images are fused (``fusion``: ``late``, ``early``, ``cross_modal``, ``token``)
before what interactions say is added: v_i = fusion(P_text x_text, P_image x_image) + delta_i. What
an item lacks takes no part. With one of the two features named there is nothing to fuse: it is the
retriever of images alone, or of texts alone.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from recbole_ext.data.features import item_features_of
from recbole_ext.models.multimodal.textpreferenceretriever import TextPreferenceRetriever, Towers
from recbole_ext.models.refused_values import check_fraction, check_not_negative
from recbole_ext.modules.fusion import build_fusion, check_fusion
from recbole_ext.modules.losses import consistency
from recbole_ext.types import Losses, UserError


class MultimodalPreferenceRetriever(TextPreferenceRetriever):
    """Two towers over stored texts and images."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.consistency_weight = config["consistency_weight"]
        self.consistency_still = config["consistency_still"]

    @classmethod
    def features_of(cls, config: Any) -> dict[str, str]:
        """Return modality -> name of the feature; text first.

        Raises:
            UserError: None is named.
        """
        return item_features_of(config)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        super().check_settings(config, train_dataset)
        check_fraction(config, ["attn_dropout_prob"])
        check_not_negative(config, ["consistency_weight"])
        if config["consistency_still"] not in ("text", "image"):
            raise UserError(
                f"consistency_still: '{config['consistency_still']}' is neither text nor image"
            )
        if config["consistency_weight"] and len(cls.features_of(config)) < 2:
            raise UserError(
                "consistency_weight: of one modality there is nothing to be consistent with; name "
                "text_feature and image_feature, or set it to 0"
            )
        check_fusion(config["fusion"], config["late"])

    def losses(self, interaction: Any, towers: Towers | None = None) -> Losses:
        """Return ``rec`` and, where they have a weight, the others and ``consistency``."""
        found = super().losses(interaction, towers)
        if self.consistency_weight:
            ids = interaction[self.POS_ITEM_ID].unique()  # [n]
            vectors, present = self.content.modalities(ids)  # [n, M, D], [n, M]
            still = 0 if self.consistency_still == "text" else 1
            found["consistency"] = self.consistency_weight * consistency(
                vectors[:, 1 - still], vectors[:, still], present.all(1)
            )
        return found

    def _build_fusion(self, config: Any, n_tokens: list[int]) -> nn.Module:
        return build_fusion(
            config["fusion"],
            n_tokens,
            config["hidden_size"],
            late=config["late"],
            n_heads=config["n_heads"],
            attn_dropout_prob=config["attn_dropout_prob"],
            pooling=config["token_pooling"],
            use_id_key=config["use_id_key"],
        )
