"""The device of a name, and the precisions that weights may have there."""

from __future__ import annotations

import torch

from recbole_ext.types import UserError

WEIGHT_DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Of the weights of a pretrained model; ``auto`` is as they were saved."""


def device_of(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA where there is one.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).tolist()  # the device "meta" has no numbers to give
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # not built for CUDA
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"device '{name}' cannot be used ({first}); set cpu or auto") from error
