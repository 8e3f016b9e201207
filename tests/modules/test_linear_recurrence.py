"""The recurrence against a loop over complex numbers, in both ways that it may be run."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_ext.modules import linear_recurrence as recurrence
from recbole_ext.modules.linear_recurrence import decay_of, linear_recurrence, product, ring_decay

WAYS = {"loop": linear_recurrence, "scan": recurrence.scan}
B, H = 3, 5


def naive(inputs, decay):
    """One user, one number, one step at a time, in complex128."""
    states = torch.zeros(inputs.shape[:3], dtype=torch.complex128)
    for b in range(inputs.shape[0]):
        for k in range(inputs.shape[2]):
            h, factor = 0j, complex(*decay[k].tolist())
            for t in range(inputs.shape[1]):
                h = factor * h + complex(*inputs[b, t, k].tolist())
                states[b, t, k] = h
    return torch.view_as_real(states)


def naive_gradients(inputs, decay, d_states):
    """Of sum(states * d_states), by the derivative of each h_t with respect to u_s and lambda.

    h_t = sum_s lambda^(t - s) u_s is analytic: the gradient of pairs is the conjugate's product.
    """
    u, factor = torch.view_as_complex(inputs), torch.view_as_complex(decay)
    g = torch.view_as_complex(d_states)
    d_u, d_factor = torch.zeros_like(u), torch.zeros_like(factor)
    for t in range(u.shape[1]):
        for s in range(t + 1):
            d_u[:, s] += (factor ** (t - s)).conj() * g[:, t]
            if t > s:
                slope = (t - s) * factor ** (t - s - 1) * u[:, s]
                d_factor += (slope.conj() * g[:, t]).sum(0)
    return torch.view_as_real(d_u), torch.view_as_real(d_factor)


def draw(length, dtype=torch.float64):
    torch.manual_seed(length)
    inputs = torch.randn(B, length, H, 2, dtype=torch.float64)
    decay = decay_of(*(x.double() for x in ring_decay(H)))
    return inputs.to(dtype), decay.to(dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_states_and_gradients_are_those_of_the_naive_recurrence(way, length):
    inputs, decay = draw(length)
    expected, d_states = naive(inputs, decay), torch.randn(B, length, H, 2, dtype=torch.float64)
    d_inputs, d_decay = naive_gradients(inputs, decay, d_states)
    inputs.requires_grad_(), decay.requires_grad_()
    found = WAYS[way](inputs, decay)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(found, (inputs, decay), d_states, allow_unused=length == 1)
    torch.testing.assert_close(gradients[0], d_inputs, rtol=0, atol=1e-11)
    if gradients[1] is not None:
        torch.testing.assert_close(gradients[1], d_decay, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_32_bits_are_enough_for_long_histories(way):
    inputs, decay = draw(200, torch.float32)
    expected = naive(inputs, decay)
    error = (WAYS[way](inputs, decay) - expected).abs().max() / expected.abs().max()
    assert error < 1e-6


def test_steps_give_what_the_whole_gives():
    inputs, decay = draw(20)
    states, carry = linear_recurrence(inputs, decay), torch.zeros(B, H, 2, dtype=torch.float64)
    for t in range(20):
        carry = torch.stack(product(decay.unbind(-1), carry.unbind(-1)), -1) + inputs[:, t]
        torch.testing.assert_close(carry, states[:, t], rtol=0, atol=1e-12)


def test_decays_lie_in_a_ring_at_all_angles():
    torch.manual_seed(0)
    decay = torch.view_as_complex(decay_of(*ring_decay(4000)).contiguous())
    assert 0.8 <= decay.abs().min() < 0.802 and 0.988 < decay.abs().max() <= 0.99 + 1e-6
    # uniform by area: as many beyond the radius that halves the ring's area as within it
    half = math.sqrt((0.8**2 + 0.99**2) / 2)
    assert (decay.abs() > half).float().mean().item() == pytest.approx(0.5, abs=0.03)
    quarters = torch.bincount(((decay.angle() + math.pi) / (math.pi / 2)).long().clamp(max=3))
    assert (quarters.float() / 4000 - 0.25).abs().max() < 0.03


@pytest.mark.slow
def test_what_is_compiled_is_the_scan():
    """The loop's autograd function is none of inductor's or export's operations."""
    inputs, decay = draw(9, torch.float32)
    compiled = torch.compile(linear_recurrence, backend="eager", fullgraph=True)
    expected = recurrence.scan(inputs, decay)
    assert torch.equal(compiled(inputs, decay), expected)
    assert not torch.equal(linear_recurrence(inputs, decay), expected)  # other sums, other rounding
