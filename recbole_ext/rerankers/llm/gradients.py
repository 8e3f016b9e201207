"""Whether gradients reach what is trained: some ways to keep a model lose them without an error."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from recbole_ext.types import UserError

SOLVED = 1e-6
"""Below this loss there is nothing left to learn, and a gradient may round to 0."""


def check_gradients(parameters: Mapping[str, nn.Parameter], loss: float) -> None:
    """Refuse gradients that are missing, not finite, or all zero in a module.

    Of a module not all parameters need one: a LoRA begins with one of its two matrices at 0, so
    that the other's gradient is 0.

    Args:
        parameters: Name -> parameter, after the backward pass.
        loss: What was differentiated.

    Raises:
        UserError: Naming the first module.
    """
    largest: dict[str, float] = {}
    for name, parameter in parameters.items():
        module = _module_of(name)
        size = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        if not torch.tensor(size).isfinite():
            raise UserError(
                f"the gradient of {name} is not finite; lower learning_rate, or set dtype to "
                "float32 or bfloat16"
            )
        largest[module] = max(size, largest.get(module, 0.0))
    flat = [module for module, size in largest.items() if size == 0.0]
    if flat and loss > SOLVED:
        raise UserError(
            f"no gradient reaches {flat[0]} ({len(flat)} of {len(largest)} modules) with a loss of "
            f"{loss:.4f}: it would not train; set dtype to float32, or load_in_4bit to False"
        )


def _module_of(name: str) -> str:
    """Return the module that a parameter is of; of a LoRA the layer that it adapts."""
    return name.partition(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0]
