"""A T5 of transformers, by hub id or folder."""

from __future__ import annotations

from typing import Any

import torch

from recbole_ext.types import UserError


def load_t5(name: str, is_random: bool = False) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a T5.

    Args:
        name: Hub id or folder.
        is_random: Whether its weights are drawn anew, by torch's seed; its size is read.

    Raises:
        UserError: transformers is missing, the model cannot be loaded, or it is no T5.
    """
    try:
        from transformers import AutoConfig, AutoTokenizer, T5ForConditionalGeneration
    except ImportError as error:
        raise UserError(
            f"vip5 needs transformers ({error}): pip install 'recbole-ext[llm]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "t5":
            raise UserError(
                f"'{name}' is a model of type {config.model_type}, and vip5 is a T5; name one, as "
                "t5-small or google/flan-t5-base"
            )
        tokenizer = AutoTokenizer.from_pretrained(name)
        if is_random:
            return tokenizer, T5ForConditionalGeneration(config)
        return tokenizer, T5ForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot load a T5 from '{name}' ({words}); give a folder, or a name on the Hugging "
            "Face hub as t5-small"
        ) from error
