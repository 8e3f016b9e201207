"""``torch_compile``: the loss of a batch through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recbole_ext.types import UserError


def compiled(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a loss function that torch compiles at its first batch, for batches of any shape.

    The function is the same up to rounding; dropout that torch compiles draws other random numbers.

    Args:
        compute: Takes a batch, returns what its losses are.

    Raises:
        UserError: When called, where torch cannot compile it; on a CPU it needs a C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # most runs have no use for it

    fast = torch.compile(compute, dynamic=True)

    def call(interaction: Any) -> Any:
        try:
            return fast(interaction)
        except TorchDynamoException as error:
            cause = " ".join(str(error).split("\n")[:2]).strip()  # "backend raised:", and what
            raise UserError(
                f"torch_compile: torch cannot compile this model's loss here ({cause}); on a CPU "
                "it needs a C++ compiler (g++); leave torch_compile out"
            ) from error

    return call
