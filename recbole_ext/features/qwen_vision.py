"""Pictures for the Qwen-VL family, from tokenizer and image processor alone.

The processor of transformers wants torchvision for videos; what it does with pictures is little: a
picture of h x w patches has h w / merge^2 tokens in the prompt. Pictures are scaled by Pillow, so
that their values do not depend on whether torchvision is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.llm import left_padded

PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
"""Stands for a picture in a text; ``<|image_pad|>`` is repeated as often as it has tokens."""
PAD = "<|image_pad|>"


@dataclass(frozen=True)
class Pixels:
    """A picture as the model takes it.

    Attributes:
        values: Of its patches, [P, C].
        grid: Frames (1), patches high and wide [3].
        n_tokens: Of it in the prompt.
    """

    values: Tensor
    grid: Tensor
    n_tokens: int


class QwenReader:
    """Reads texts with pictures for a Qwen-VL.

    Args:
        tokenizer: Of transformers.
        image_processor: Of transformers, in Pillow.
        image_token_id: Of the token that a picture's tokens are.
    """

    def __init__(self, tokenizer: Any, image_processor: Any, image_token_id: int) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.image_token_id = image_token_id
        tokenizer.padding_side = "left"  # the answer stands at the right end of every row
        self.settings = {
            "size": dict(image_processor.size),
            "chat": text_hash(str(tokenizer.chat_template)),
        }

    @classmethod
    def load(cls, model_id: str, config: Any, max_pixels: int | None) -> QwenReader:
        """Load tokenizer and image processor; pictures have at most so many pixels."""
        from transformers import AutoImageProcessor, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model_id)
        processor = AutoImageProcessor.from_pretrained(model_id, backend="pil")
        if max_pixels is not None:
            side = processor.patch_size * processor.merge_size
            if max_pixels < side * side:
                raise ValueError(f"max_pixels {max_pixels} is less than a token, {side} x {side}")
            size = dict(processor.size)
            least = min(size["shortest_edge"], max_pixels)
            processor.size = {"shortest_edge": least, "longest_edge": max_pixels}
        return cls(tokenizer, processor, config.image_token_id)

    def pixels(self, picture: Image.Image) -> Pixels:
        """Return a picture as the model takes it."""
        found = self.image_processor(images=[picture], return_tensors="pt")
        grid = found["image_grid_thw"][0]  # [3]
        n_tokens = int(grid.prod()) // self.image_processor.merge_size**2
        return Pixels(found["pixel_values"], grid, n_tokens)

    def asked(self, prompt: str) -> str:
        """Return a prompt about one picture as the model wants it: as a chat, if it has one."""
        text = PICTURE + prompt
        if self.tokenizer.chat_template is None:
            return text
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )

    def spelled(self, text: str, n_tokens: Sequence[int]) -> str:
        """Return a text with as many tokens of a picture as it has.

        Args:
            text: With a ``PICTURE`` for each picture.
            n_tokens: Of each picture.

        Raises:
            ValueError: The text has more or fewer places than there are pictures.
        """
        first, *rest = text.split(PAD)
        if len(rest) != len(n_tokens):
            raise ValueError(f"{len(rest)} places for {len(n_tokens)} pictures")
        return first + "".join(PAD * n + part for n, part in zip(n_tokens, rest, strict=True))

    def batch(self, rows: Sequence[Sequence[int]], pixels: Sequence[Pixels]) -> dict[str, Tensor]:
        """Return the model's inputs: ``input_ids``, ``attention_mask`` [B, T] and the pictures.

        Args:
            rows: Tokens of each text.
            pixels: The pictures of all texts, in order.
        """
        padding = self.tokenizer.pad_token_id
        ids, mask = left_padded(rows, 0 if padding is None else padding, "cpu")  # [B, T] each
        found = {"input_ids": ids, "attention_mask": mask}
        if pixels:
            found["mm_token_type_ids"] = (ids == self.image_token_id).int()  # [B, T]
            found["pixel_values"] = torch.cat([one.values for one in pixels])  # [sum of P, C]
            found["image_grid_thw"] = torch.stack([one.grid for one in pixels])  # [n, 3]
        return found

    def inputs(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Return the model's inputs for texts with a picture each, padded on the left."""
        pixels = [self.pixels(picture) for picture in pictures]
        spelled = [
            self.spelled(text, [one.n_tokens]) for text, one in zip(texts, pixels, strict=True)
        ]
        rows = self.tokenizer(spelled, add_special_tokens=False)["input_ids"]
        return self.batch(rows, pixels)
