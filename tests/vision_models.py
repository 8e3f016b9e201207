"""Tiny random models saved to folders, which ``from_pretrained`` reads as it reads a user's.

Each has a configuration, weights, a tokenizer of bytes and, where it sees, an image processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def transformers() -> Any:
    """Return the package, or skip the test."""
    return pytest.importorskip("transformers", reason="needs the extra [llm]")


def byte_tokenizer(special: tuple[str, ...], **more: Any) -> Any:
    """Return a tokenizer with a token for each byte behind the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=list(special), **more
    )


def save_qwen_vl(folder: Path) -> str:
    """Save a Qwen3-VL of two layers: patches of 4 x 4 pixels, four of them a token."""
    package = transformers()
    tokenizer = byte_tokenizer(SPECIAL, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rope_parameters": {**rope, "rope_theta": 10000.0},
        "initializer_range": 0.3,
        "max_position_embeddings": 4096,
    }
    vision = {
        "depth": 2,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "patch_size": 4,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.3,
    }
    config = package.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        eos_token_id=ids["<|im_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    package.Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    package.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    ).save_pretrained(folder)
    return str(folder)


def save_blip2(folder: Path) -> str:
    """Save a BLIP-2 over an OPT: pictures of 8 x 8 pixels, two query tokens."""
    package = transformers()
    special = ("<pad>", "</s>", "<image>")
    tokenizer = byte_tokenizer(special, eos_token="</s>", bos_token="</s>", pad_token="<pad>")
    width = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "initializer_range": 0.3}
    config = package.Blip2Config(
        vision_config={**width, **heads, "image_size": 8, "patch_size": 4},
        qformer_config={**width, **heads, "encoder_hidden_size": 16, "vocab_size": 8},
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "ffn_dim": 16,
            "word_embed_proj_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "init_std": 0.6,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        },
        num_query_tokens=2,
        image_token_index=2,
        initializer_range=0.6,
    )
    torch.manual_seed(3)
    model = package.Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)  # zeros, which a saved model has not
    model.save_pretrained(folder)
    image_processor = package.BlipImageProcessorPil(size={"height": 8, "width": 8})
    package.Blip2Processor(image_processor, tokenizer, num_query_tokens=2).save_pretrained(folder)
    return str(folder)


def save_t5(folder: Path) -> str:
    """Save a T5 of one layer each."""
    package = transformers()
    special = ("<pad>", "</s>", "<unk>", *(f"<extra_id_{i}>" for i in range(4)))
    tokenizer = byte_tokenizer(special, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    torch.manual_seed(0)
    config = package.T5Config(
        vocab_size=len(tokenizer) + 5,  # of t5-small too there are more rows than tokens
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        dropout_rate=0.0,
        initializer_factor=1.0,
    )
    package.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
