"""A Qwen-VL on this machine: prompts with pictures in them, and the labels' logits behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.pictured import to_model
from recbole_ext.features.vision_language import VisionLanguage
from recbole_ext.rerankers.llm.local import LocalEngine
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.llm.readers import TokenReader
from recbole_ext.rerankers.vision.pixels import Picture, PixelCache


@dataclass(frozen=True)
class PicturedPrompt(Prompt):
    """A prompt with a ``PICTURE`` in its text for each of its pictures."""

    pictures: tuple[Picture, ...] = ()


class PicturedTokens(tuple[int, ...]):
    """Tokens of a prompt, which know their pictures."""

    pictures: tuple[Picture, ...]

    @classmethod
    def of(cls, tokens: Iterable[int], pictures: tuple[Picture, ...]) -> PicturedTokens:
        """Return tokens with their pictures."""
        found = cls(tokens)
        found.pictures = pictures
        return found


class VisionReader(TokenReader):
    """Reads prompts with pictures, each of as many tokens as it has.

    Args:
        reader: Of the model.
    """

    def __init__(self, reader: Any) -> None:
        super().__init__(reader.tokenizer)
        self._spelled = reader.spelled

    def _encode(self, prompt: Prompt) -> PicturedTokens:
        pictures = prompt.pictures if isinstance(prompt, PicturedPrompt) else ()
        text = self._spelled(self.text(prompt), [one.n_tokens for one in pictures])
        return PicturedTokens.of(self.tokens(text), pictures)


class VisionEngine(LocalEngine):
    """Scores labels behind prompts with pictures; see :class:`LocalEngine`.

    Args:
        found: The model and what reads for it.
        cache: Of pixel values.
        more: As for ``LocalEngine``.
    """

    def __init__(self, found: VisionLanguage, cache: PixelCache, **more: Any) -> None:
        super().__init__(found.model, found.reader.tokenizer, **more)
        self.vision, self.cache = found.reader, cache
        self.reader = VisionReader(found.reader)

    def digest(self) -> str:
        """Return a hash of the weights, and of what becomes of a prompt and of a picture."""
        return text_hash(f"{super().digest()} {self.vision.settings}")

    def last_hidden(self, asked: Sequence[Sequence[int]]) -> Tensor:
        """Return the state at the end of each prompt [B, D]."""
        pictures = [one for tokens in asked for one in getattr(tokens, "pictures", ())]
        if not pictures:
            return super().last_hidden(asked)
        pixels = [self.cache.pixels(one) for one in pictures]
        given = to_model(self.vision.batch(asked, pixels), self.model)
        # positions are the model's own work: those of a picture lie in three dimensions
        return self._read(**given, use_cache=False).last_hidden_state[:, -1]  # [B, D]

    def freeze_tower(self) -> None:
        """Let what reads pictures stay as it is."""
        self.model.base_model.visual.requires_grad_(False)
