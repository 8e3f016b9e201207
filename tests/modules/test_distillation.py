"""What one ranking teaches another, in whatever precision its scores come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.distillation import candidate_loss, distillation, standardise


def scores(seed):
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(16, 33, generator=generator)


def log_softmax(x):
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_are_exact_of_what_they_get(dtype):
    """Against their definitions in double precision of the same, perhaps rounded, scores."""
    student, teacher = scores(0).to(dtype), scores(1).to(dtype)
    s, t = student.double().numpy(), teacher.double().numpy()
    p, q = log_softmax(t / 3), log_softmax(s / 3)
    wanted = 9 * (np.exp(p) * (p - q)).sum(1).mean()
    assert distillation(student, teacher, 3.0).item() == pytest.approx(wanted, rel=1e-5)
    wanted = -log_softmax(s)[:, 0].mean()
    assert candidate_loss(student).item() == pytest.approx(wanted, rel=1e-5)
    wanted = (s - s.mean(1, keepdims=True)) / s.std(1, keepdims=True)
    np.testing.assert_allclose(standardise(student).double().numpy(), wanted, atol=1e-5)


def test_a_row_of_equal_scores_teaches_nothing_and_learns_nothing():
    """Not the rounding of it, blown up by its tiny deviation."""
    for value in (0.0, 0.1, 12.3):
        alike = torch.full((2, 101), value)
        alike[1] += 1e-7 * value * torch.randn(101, generator=torch.Generator().manual_seed(0))
        student = alike.requires_grad_()
        found = standardise(student)
        assert not found.any()
        distillation(found, scores(2).repeat(1, 4)[:2, :101]).backward()
        assert not student.grad.any()
