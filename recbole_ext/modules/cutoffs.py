"""Which training pairs may use a text that was written from interactions."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def usable(cutoff_rows: Array, target_times: Array, users: Array) -> Array:
    """Tell which pairs have a target after the cut-off of their user's text.

    A text may tell of all that its user did up to its cut-off, so a pair whose target lies at or
    before it would be learned by reading the answer. Times are compared in the type of
    ``target_times``: in RecBole's float32 a second of today is rounded to a minute or two, and what
    is equal then is not after.

    Args:
        cutoff_rows: Cut-off of each user's text, NaN where there is none, float64 [U].
        target_times: Time of each target, in the unit of the cut-offs [B].
        users: User of each pair [B].

    Returns:
        Booleans [B], False where there is no text.
    """
    cutoffs = cutoff_rows[users]  # [B]
    if isinstance(cutoffs, Tensor) and isinstance(target_times, Tensor):
        is_float = target_times.is_floating_point()  # NaN is no integer
        return target_times > cutoffs.to(target_times.dtype if is_float else torch.float64)
    # float16 promotes to the type of a floating array, and with integers to float64
    return target_times > cutoffs.astype(np.result_type(target_times, np.float16))
