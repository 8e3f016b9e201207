"""A Qwen3 of two layers with random weights and a tokenizer of its own, saved as a user has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

TITLES = [f"Title {i} of 40" for i in range(40)]
# as the template of Qwen3, in short
CHAT = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{%- endif %}"
)
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def save_tokenizer(folder: Path, corpus: list[str], chat_template: str | None = CHAT) -> Any:
    """Train a byte-level BPE, in which every letter is a token, and yes and no are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*corpus, *["yes\nno\n"] * 50], trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)
    return wrapped


def save_qwen(folder: Path, corpus: list[str] = TITLES, **sizes: Any) -> Path:
    """Save tokenizer and model into a folder; ``sizes`` are of Qwen3Config."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    n_tokens = len(save_tokenizer(folder, corpus))
    torch.manual_seed(4)
    tiny = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "initializer_range": 0.5,  # else random logits are all about 0
    }
    config = Qwen3Config(vocab_size=n_tokens, tie_word_embeddings=True, **{**tiny, **sizes})
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random Qwen3 with two layers."""
    pytest.importorskip("transformers", reason="needs the extra [llm]")
    return str(save_qwen(tmp_path_factory.mktemp("qwen")))
