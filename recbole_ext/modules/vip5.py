"""VIP5 (Geng et al., EMNLP Findings 2023): a T5 that reads visual tokens between the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.houlsby import add_adapters

N_WHOLE_WORDS = 512
"""Words of a prompt at most."""
TEXT, VISUAL = 0, 1
"""Categories of tokens."""


@dataclass(frozen=True)
class Prompts:
    """Prompts as the encoder takes them; B rows, padded to T.

    Attributes:
        ids: Tokens [B, T]; at visual ones a placeholder.
        mask: Which are there [B, T].
        whole_words: Number of the word that each token is of [B, T].
        categories: ``TEXT`` or ``VISUAL`` [B, T].
        features: Of the pictures of all rows in order, each for k visual tokens [V, F].
    """

    ids: Tensor
    mask: Tensor
    whole_words: Tensor
    categories: Tensor
    features: Tensor

    def to(self, device: torch.device) -> Prompts:
        """Return them on a device."""
        return Prompts(**{key: value.to(device) for key, value in vars(self).items()})


class VisualProjection(nn.Module):
    """A picture's vector to k tokens: two layers with tanh between, and a norm over all k.

    Args:
        feature_size: F.
        hidden_size: D.
        n_visual_tokens: k.
    """

    def __init__(self, feature_size: int, hidden_size: int, n_visual_tokens: int) -> None:
        super().__init__()
        size = hidden_size * n_visual_tokens
        self.hidden_size = hidden_size
        self.layers = nn.Sequential(
            nn.Linear(feature_size, max(size // 2, 1)),
            nn.Tanh(),
            nn.Linear(max(size // 2, 1), size),
            nn.RMSNorm(size, eps=1e-6),  # T5's own norm: no mean is taken away
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the tokens of features [V, F], those of one behind another [V * k, D]."""
        return self.layers(features).view(-1, self.hidden_size)  # [V * k, D]


class VIP5(nn.Module):
    """Encodes prompts with pictures, and says how likely texts are as the answer.

    Args:
        t5: ``T5ForConditionalGeneration``; gets adapters.
        feature_size: F.
        n_visual_tokens: k, of each picture.
        adapter_reduction: An adapter's bottleneck is D over this.
    """

    def __init__(
        self, t5: Any, feature_size: int, n_visual_tokens: int, adapter_reduction: int
    ) -> None:
        super().__init__()
        size = t5.config.d_model
        self.t5 = t5
        self.adapters = add_adapters(t5, max(size // adapter_reduction, 1))  # a list: t5 has them
        self.visual = VisualProjection(feature_size, size, n_visual_tokens)
        self.whole_word_embedding = nn.Embedding(N_WHOLE_WORDS, size)
        self.category_embedding = nn.Embedding(2, size)

    def train_parts(self, is_all: bool) -> None:
        """Let all train, or what is new alone: adapters, projection and the two embeddings."""
        self.requires_grad_(True)
        if not is_all:
            self.t5.requires_grad_(False)
            for adapter in self.adapters:
                adapter.requires_grad_(True)

    def encode(self, prompts: Prompts) -> Tensor:
        """Return the encoder's states [B, T, D].

        A visual token takes the place of the placeholder's embedding; then every token is added
        the embeddings of its word and of its category.
        """
        emb = self.t5.get_input_embeddings()(prompts.ids)  # [B, T, D]
        is_visual = prompts.categories == VISUAL  # [B, T]
        visual = self.visual(prompts.features).to(emb.dtype)  # [V * k, D]
        emb = emb.masked_scatter(is_visual[:, :, None], visual)  # [B, T, D]
        emb = emb + self.whole_word_embedding(prompts.whole_words)  # [B, T, D]
        emb = emb + self.category_embedding(prompts.categories)  # [B, T, D]
        encoder = self.t5.get_encoder()
        return encoder(inputs_embeds=emb, attention_mask=prompts.mask).last_hidden_state

    def log_likelihood(
        self, hidden: Tensor, mask: Tensor, answers: Tensor, answer_mask: Tensor
    ) -> Tensor:
        """Return the log-probability of all tokens of each answer [b].

        Args:
            hidden: States of the prompt that each answer is to [b, T, D].
            mask: Their mask [b, T].
            answers: Tokens [b, S], the end of the text with them.
            answer_mask: Which are there [b, S].
        """
        given = self.t5.prepare_decoder_input_ids_from_labels(answers)  # [b, S], a place later
        logits = self.t5(
            encoder_outputs=(hidden,),
            attention_mask=mask,
            decoder_input_ids=given,
            use_cache=False,
        ).logits  # [b, S, vocabulary]
        logs = logits.float().log_softmax(-1)  # [b, S, vocabulary]
        found = logs.gather(-1, answers[:, :, None])[:, :, 0]  # [b, S]
        return (found * answer_mask).sum(1)  # [b]
