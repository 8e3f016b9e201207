"""The linear recurrence h_t = lambda h_{t-1} + u_t over complex numbers, each on its own.

Complex numbers are pairs of reals in the last dimension, which autocast, ``torch.compile`` and
export understand. There are two ways to run it, with one result: :func:`scan` takes log2 L steps
that each go over the whole sequence, for devices that do much at once; :class:`_Loop` takes L steps
in place, each over one position, which is less to read and write: on a CPU 7 to 8 times as fast.
``benchmarks/linear_recurrence.py`` measures both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_recurrence(inputs: Tensor, decay: Tensor) -> Tensor:
    """Return every state of h_t = decay * h_{t-1} + inputs_t, where h_0 is 0.

    Args:
        inputs: Pairs [B, L, H, 2], real and imaginary part; float32 or float64.
        decay: Pairs [H, 2].

    Returns:
        Pairs [B, L, H, 2]. A state depends on nothing that stands after it.
    """
    if inputs.device.type != "cpu" or torch.compiler.is_compiling():  # exporting, too
        return scan(inputs, decay)
    states = _Loop.apply(inputs.transpose(0, 1), decay)  # [L, B, H, 2]
    return states.transpose(0, 1)  # [B, L, H, 2]


def scan(inputs: Tensor, decay: Tensor) -> Tensor:
    """Return what :func:`linear_recurrence` returns in log2 L steps (Hillis and Steele, 1986).

    After the step of width w a state holds the last 2 w inputs.
    """
    states: Sequence[Tensor] = inputs.unbind(-1)  # 2 x [B, L, H]
    factor: Sequence[Tensor] = decay.unbind(-1)  # 2 x [H]
    width = 1
    while width < inputs.size(1):
        carried = product(factor, [part[:, :-width] for part in states])  # 2 x [B, L - width, H]
        states = [
            torch.cat([part[:, :width], part[:, width:] + more], 1)
            for part, more in zip(states, carried, strict=True)
        ]  # 2 x [B, L, H]
        factor, width = product(factor, factor), 2 * width
    return torch.stack(tuple(states), -1)


def product(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    """Multiply complex numbers, each given by its real and its imaginary part [...]."""
    return [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]


def ring_decay(n: int, smallest: float = 0.8, largest: float = 0.99) -> tuple[Tensor, Tensor]:
    """Draw decays uniformly from a ring (Orvieto et al., ICML 2023, lemma 3.2).

    Args:
        n: How many, H.
        smallest: Least modulus.
        largest: Greatest modulus, below 1.

    Returns:
        ``(nu_log, theta_log)``, [H] each, as :func:`decay_of` takes them.
    """
    u1, u2 = torch.rand(n), 1 - torch.rand(n)  # the angle's logarithm needs u2 > 0
    modulus = u1 * (largest**2 - smallest**2) + smallest**2  # [H], squared
    return (-0.5 * modulus.log()).log(), (2 * math.pi * u2).log()


def decay_of(nu_log: Tensor, theta_log: Tensor) -> Tensor:
    """Return exp(-exp(nu_log) + i exp(theta_log)) as pairs, [H], [H] -> [H, 2]; modulus below 1."""
    modulus, angle = (-nu_log.exp()).exp(), theta_log.exp()  # [H] each
    return torch.stack([modulus * angle.cos(), modulus * angle.sin()], -1)


class _Loop(torch.autograd.Function):
    """The recurrence over [L, B, H, 2]; its gradient is the same recurrence from the end."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, decay: Tensor) -> Tensor:
        states = inputs.clone(memory_format=torch.contiguous_format)  # [L, B, H, 2]
        factor = torch.view_as_complex(decay.contiguous())  # [H]
        _accumulate(torch.view_as_complex(states).unbind(), factor)
        ctx.save_for_backward(states, factor)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor]:
        states, factor = ctx.saved_tensors
        d_inputs = d_states.clone(memory_format=torch.contiguous_format)  # [L, B, H, 2]
        later, earlier = torch.view_as_complex(d_inputs), torch.view_as_complex(states)
        _accumulate(reversed(later.unbind()), factor.conj())
        d_factor = (later[1:] * earlier[:-1].conj()).sum((0, 1))  # [H]
        return d_inputs, torch.view_as_real(d_factor)


def _accumulate(values: Iterable[Tensor], factor: Tensor) -> None:
    """Add ``factor`` [H] times each value [B, H] to the one that follows it, in place."""
    for before, now in pairwise(values):
        now.addcmul_(factor, before)
