"""An optimizer step and a loss sum that cost less; RecBole's loop is left as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAN_CHECK_STEPS = 50
"""Steps on a GPU between two looks for a loss that is not a number: each look waits for it."""


def fuse(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let Adam and AdamW update each tensor in one pass; the same formula, up to rounding.

    Other optimizers, and parameters of a kind that torch has no such pass for, stay as they are.
    """
    fusible = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
    for group in optimizer.param_groups if fusible else ():
        if all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"]):
            group.update(fused=True, foreach=False)
    return optimizer


def for_step_of(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's saved state with this optimizer's own way of stepping in it.

    torch loads ``fused`` and ``foreach`` as it loads the learning rate; whether :func:`fuse`
    applies is for the run to say that goes on, with its device and its settings.
    """
    own = [
        {key: group[key] for key in ("fused", "foreach") if key in group}
        for group in optimizer.param_groups
    ]
    groups = saved["param_groups"]
    if len(groups) != len(own):
        return saved  # torch says what is wrong
    return {**saved, "param_groups": [{**g, **o} for g, o in zip(groups, own, strict=True)]}


class UnreadLoss(Tensor):
    """A loss whose ``item()`` stays on its device.

    RecBole's loop adds up ``loss.item()``, which makes the CPU wait for the GPU in each step; this
    way it adds up tensors, in float64 as Python does.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def item(self) -> Any:
        """Return the value as a float64 tensor."""
        return self.detach().as_subclass(Tensor).double()


def unread(losses: Any) -> Any:
    """Return a loss, or a tuple of losses, as :class:`UnreadLoss` where reading one would wait."""
    if isinstance(losses, tuple):
        return tuple(unread(loss) for loss in losses)
    return losses if losses.device.type == "cpu" else losses.as_subclass(UnreadLoss)


def read(total: Any) -> Any:
    """Return RecBole's sum of losses, or tuple of sums, as Python numbers."""
    if isinstance(total, tuple):
        return tuple(read(part) for part in total)
    return float(total) if isinstance(total, Tensor) else total
