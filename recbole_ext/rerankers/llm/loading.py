"""From a model's name to the model: its weights, in 4 bits where asked for, and its adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recbole_ext.features.device import device_of
from recbole_ext.features.llm import load_language_model
from recbole_ext.types import UserError, suggest

ALIASES = {
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-reranker-0.6b": "Qwen/Qwen3-Reranker-0.6B",
    "qwen3-reranker-4b": "Qwen/Qwen3-Reranker-4B",
    "qwen3-reranker-8b": "Qwen/Qwen3-Reranker-8B",
}
"""Short names; any other is a hub id or a folder."""


@dataclass(frozen=True)
class Load:
    """How a model is loaded.

    Attributes:
        device: ``cpu``, ``cuda`` or ``auto``, which is CUDA where there is one.
        dtype: Of the weights; ``auto`` as they were saved.
        in_4bit: Whether the weights are kept in 4 bits, by bitsandbytes.
        max_length: Tokens that it will be given at most.
    """

    device: str = "auto"
    dtype: str = "auto"
    in_4bit: bool = False
    max_length: int = 0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., 2021) in place of all weights.

    Attributes:
        rank: Of each adapter.
        alpha: Scale: an adapter counts alpha / rank.
        dropout: Before each adapter, in training.
        targets: ``all-linear``, or names of layers: ``[q_proj, v_proj]``.
    """

    rank: int
    alpha: float
    dropout: float
    targets: str | Sequence[str]


def load_model(name: str, how: Load) -> tuple[Any, Any]:
    """Return a causal language model and its tokenizer, which pads on the left.

    Args:
        name: One of :data:`ALIASES`, a hub id, or a folder.
        how: Device, precision and length.

    Raises:
        UserError: transformers is missing, the model is not there, it cannot read so much, or 4
            bits are asked for where there is no CUDA device.
    """
    device = device_of(how.device)
    try:
        tokenizer, model = load_language_model(
            ALIASES.get(name, name), str(device), dtype=how.dtype, **precision(how)
        )
    except UserError as error:
        is_slip = name not in ALIASES and "/" not in name
        raise UserError(f"{error}{suggest(name, ALIASES) if is_slip else ''}") from error
    check_length(name, model.config, how.max_length)
    return tokenizer, model


def precision(how: Load) -> dict[str, Any]:
    """Return what ``from_pretrained`` takes for weights in 4 bits; nothing for others.

    Raises:
        UserError: There is no CUDA device for them.
    """
    if not how.in_4bit:
        return {}
    device = device_of(how.device)
    if device.type != "cuda":
        raise UserError(
            f"load_in_4bit needs a CUDA device, and this is {device.type}; leave it out, or take a "
            "smaller model"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def check_length(name: str, config: Any, max_length: int) -> None:
    """Refuse prompts that are longer than a model reads.

    Raises:
        UserError: With both lengths.
    """
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most is not None and max_length > most:
        raise UserError(
            f"max_length is {max_length}, and model '{name}' reads {most} tokens; lower it"
        )


def add_adapter(model: Any, lora: Lora, seed: int) -> Any:
    """Put new adapters into a model, whose own weights no longer train.

    Args:
        model: Causal language model; its layers are replaced in place.
        lora: How large and where.
        seed: Of their first values.

    Returns:
        The wrapper of peft, by which the adapters are saved.

    Raises:
        UserError: peft is missing, or the model has no such layers.
    """
    peft = _peft()
    if getattr(model, "is_loaded_in_4bit", False):
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(
                f"lora_targets: {lora.targets} cannot be adapted ({words}); take all-linear, or "
                "names of linear layers as [q_proj, v_proj]"
            ) from error


def read_adapter(model: Any, folder: Path) -> Any:
    """Put the adapters of a folder into a model, ready to score or to train on.

    Raises:
        UserError: peft is missing, or the adapters are damaged or of another model.
    """
    peft = _peft()
    try:
        return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)
    except Exception as error:  # of safetensors, json, peft and torch, each their own
        raise UserError(
            f"the adapter in {folder} cannot be read ({' '.join(str(error).split())[:200]}); train "
            "the reranker anew"
        ) from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError(
            f"LoRA needs peft, which cannot be imported ({error}); run: pip install "
            "'recbole-ext[lora]', or set lora to False, which trains all weights"
        ) from error
    return peft


def as_settings(settings: Mapping[str, Any]) -> tuple[Load, Lora | None]:
    """Return how a reranker's settings say that a model is loaded and adapted."""
    load = Load(
        settings["device"], settings["dtype"], settings["load_in_4bit"], settings["max_length"]
    )
    if not settings["lora"]:
        return load, None
    keys = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
    return load, Lora(*(settings[key] for key in keys))
