"""What is kept of weights, and what is not taken for it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from recbole_ext.modules.remembered import Remembered


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))
        self.register_buffer("feature", torch.ones(1000))
        self.remembered, self.calls = Remembered(), 0

    def compute(self):
        self.calls += 1
        return 2 * self.weight * self.feature

    @torch.no_grad()
    def forward(self):
        return self.remembered(self, self.compute)


@pytest.fixture
def net():
    return Doubled().eval()


@pytest.mark.parametrize("name", ["weight", "feature"])
def test_what_changes_in_place_is_noticed(net, name):
    assert net()[0] == 2 and net()[0] == 2 and net.calls == 1
    with torch.no_grad():
        getattr(net, name).mul_(3)
    assert net()[0] == 6 and net.calls == 2


def test_loaded_weights_are_noticed(net):
    net()
    net.load_state_dict({"weight": torch.full((1000,), 5.0)}, strict=False)
    assert net()[0] == 10
    net.load_state_dict({"weight": torch.full((1000,), 7.0)}, strict=False, assign=True)
    assert net()[0] == 14


def test_nothing_is_kept_while_something_trains(net):
    net.train()()
    with torch.enable_grad():
        net.eval().remembered(net, net.compute)
    assert net.calls == 2
    net()
    net.remembered.forget()
    net()
    assert net.calls == 4


def test_weights_without_a_version_are_never_trusted():
    """Those that are made under ``inference_mode`` do not say when they change."""
    with torch.inference_mode():
        net = Doubled().eval()
        assert net()[0] == 2
        net.weight.mul_(3)
        assert net()[0] == 6


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_model_begins_without(net, again):
    empty = len(pickle.dumps(net))
    net()
    assert len(pickle.dumps(net)) == empty, "a file of the model has its vectors too"
    other = again(net)
    with torch.no_grad():
        other.weight.mul_(3)
    assert other()[0] == 6 and net()[0] == 2
