"""Models that read a picture and write text: Qwen-VL, BLIP-2, any image-to-text of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from recbole_ext.features.device import device_of
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.hub import near_folder, quiet_hub, reason
from recbole_ext.features.qwen_vision import QwenReader
from recbole_ext.types import UserError, suggest

ALIASES = {
    "qwen3-vl-2b": "Qwen/Qwen3-VL-2B-Instruct",
    "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
    "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
    "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "blip2-opt-2.7b": "Salesforce/blip2-opt-2.7b",
    "blip2-flan-t5-xl": "Salesforce/blip2-flan-t5-xl",
    "blip-base": "Salesforce/blip-image-captioning-base",
    "blip-large": "Salesforce/blip-image-captioning-large",
}
"""Short names of models on the Hugging Face hub."""


class Reader(Protocol):
    """Makes of texts and pictures what a model takes."""

    tokenizer: Any
    settings: dict[str, Any]

    def asked(self, prompt: str) -> str:
        """Return a prompt about one picture as the model wants it: as a chat, or as it stands."""
        ...

    def inputs(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Return the model's inputs for texts with a picture each, padded on the left."""
        ...


@dataclass(frozen=True)
class VisionLanguage:
    """A model with what reads for it.

    Attributes:
        name: Alias, hub id or folder, as it was given.
        model: Of transformers, in evaluation mode.
        reader: Its tokenizer and image processor.
        device: Where it is.
    """

    name: str
    model: Any
    reader: Any
    device: torch.device


class AutoReader:
    """Reads by ``AutoProcessor``.

    Args:
        processor: Of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.tokenizer.padding_side = "left"  # the model goes on at the right
        self._template = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        said = f"{processor.image_processor} {self._template}"
        self.settings = {"processor": text_hash(said)}

    def asked(self, prompt: str) -> str:
        """Return a prompt about one picture as the model wants it."""
        if not self._template:
            return prompt
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
        )

    def inputs(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Return the model's inputs for texts with a picture each, padded on the left."""
        return dict(
            self.processor(
                images=list(pictures), text=list(texts), padding=True, return_tensors="pt"
            )
        )


def load_vision_language(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_pixels: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> VisionLanguage:
    """Load a model that reads pictures, in evaluation mode.

    Args:
        name: Alias, hub id, or folder of a saved model.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: One of :data:`~recbole_ext.features.device.WEIGHT_DTYPES`.
        max_pixels: Larger pictures are made smaller; of the Qwen-VL family alone.
        more: What else ``from_pretrained`` takes.

    Raises:
        UserError: transformers is missing, the model cannot be loaded or reads no pictures.
    """
    place = device_of(device)
    config = vision_config(name)
    model_id = ALIASES.get(name, name)
    try:
        from transformers import AutoModelForImageTextToText

        reader = _reader_of(name, config, max_pixels)
        model = AutoModelForImageTextToText.from_pretrained(
            model_id, dtype=dtype if dtype == "auto" else getattr(torch, dtype), **(more or {})
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _not_loaded(name, error) from error
    model = model if more else model.to(place)  # weights in 4 bits are where they belong
    return VisionLanguage(name, model.eval(), reader, place)


def vision_config(name: str) -> Any:
    """Return the configuration of a model that reads pictures.

    Raises:
        UserError: transformers is missing, there is no such model, or it reads no pictures.
    """
    quiet_hub()
    try:
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig
    except ImportError as error:
        raise UserError(
            f"a model that reads pictures needs transformers ({error}): "
            "pip install 'recbole-ext[llm]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(ALIASES.get(name, name))
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"'{name}' is a model of type {config.model_type}, which reads no pictures; name one "
            f"that does, as {', '.join(ALIASES)}"
        )
    return config


def _reader_of(name: str, config: Any, max_pixels: int | None) -> Reader:
    from transformers import AutoProcessor

    model_id = ALIASES.get(name, name)
    if is_qwen_vl(config):
        return QwenReader.load(model_id, config, max_pixels)
    if max_pixels is not None:
        raise UserError(
            f"max_pixels is for Qwen-VL, and '{name}' (of type {config.model_type}) reads pictures "
            "of one size; leave it out"
        )
    processor = AutoProcessor.from_pretrained(model_id)
    if config.model_type == "blip-2" and processor.num_query_tokens is None:  # saved before v4.46
        processor.num_query_tokens = config.num_query_tokens
    return AutoReader(processor)


def is_qwen_vl(config: Any) -> bool:
    """Tell whether a model is of the Qwen-VL family, whose pictures have as many tokens as size."""
    return config.model_type.startswith("qwen") and "_vl" in config.model_type


def _not_loaded(name: str, error: Exception) -> UserError:
    hint = suggest(name, ALIASES) or near_folder(name)
    return UserError(
        f"cannot load a model that reads pictures from '{name}'{hint} ({reason(error)}); "
        f"give a folder, a name on the Hugging Face hub, or one of {', '.join(ALIASES)}"
    )
