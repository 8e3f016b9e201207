"""The retriever's temperature: bounded, and never stuck at a bound."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.retriever import TEMPERATURE_RANGE, Retriever

OUTSIDE = [(1e-4, TEMPERATURE_RANGE[0]), (100.0, TEMPERATURE_RANGE[1])]


@pytest.mark.parametrize(("start", "bound"), OUTSIDE)
def test_a_temperature_beyond_a_bound_is_the_bound_and_still_has_a_gradient(start, bound):
    retriever = Retriever(4, temperature=start)
    assert retriever.temperature.item() == pytest.approx(bound, rel=1e-5)
    retriever.temperature.backward()
    assert retriever.log_temperature.grad.item() > 0


@pytest.mark.parametrize(("start", "bound"), OUTSIDE)
def test_training_brings_it_back(start, bound):
    retriever = Retriever(4, temperature=start)
    optimizer = torch.optim.Adam([retriever.log_temperature], lr=0.1)
    for _ in range(1000):
        optimizer.zero_grad()
        (retriever.temperature - 0.5).square().backward()
        optimizer.step()
    assert retriever.temperature.item() == pytest.approx(0.5, abs=0.05)


def test_within_the_bounds_it_is_the_parameter_and_has_its_gradient():
    retriever = Retriever(4, temperature=0.3)
    assert torch.equal(retriever.temperature, retriever.log_temperature.exp())
    retriever.temperature.backward()
    assert retriever.log_temperature.grad.item() == pytest.approx(0.3, rel=1e-5)
