"""What FTRagRec trains: the retriever, and nothing that is frozen."""

from __future__ import annotations

import copy

import pytest
import torch

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.types import TrainState, UserError
from tests.models.ftragrec_help import FIXED, MIXES, first_batch, shake, train


@pytest.mark.parametrize("mix", MIXES)
def test_the_enhanced_loss_has_a_gradient_for_the_retriever(make, mix):
    net, loaders = make(mix=mix, top_k=20, **FIXED)
    shake(net.encoder, 0.1)
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    retriever = net.retrieval.retriever
    assert (retriever.blocks[0].dense_2.weight.grad != 0).any()
    assert retriever.log_temperature.grad != 0
    if mix == "gate":
        assert (net.retrieval.gate.dense.weight.grad != 0).any()


def test_the_gradient_reaches_the_memory_side_too(make):
    """With detached keys the retriever would learn from the query alone."""
    net, loaders = make(top_k=20, **FIXED)
    net.keeper.training(net.memory_weights).states.requires_grad_()
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    rows_touched = (net.keeper.training(net.memory_weights).states.grad != 0).any(1).sum()
    assert rows_touched > len(first_batch(loaders[0]))  # more than the queries themselves


def test_frozen_tensors_are_bit_identical_after_training(make):
    net, loaders = make()
    before = copy.deepcopy(net.encoder.state_dict())
    moved = copy.deepcopy(net.retrieval.state_dict())
    train(net, loaders[0], epochs=2, weight_decay=0.1)
    for name, value in net.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    changed = [n for n, v in net.retrieval.state_dict().items() if not torch.equal(v, moved[n])]
    assert "retriever.blocks.0.dense_2.weight" in changed


PARTS = ["item_embedding", "position_embedding", "LayerNorm", "trm_encoder"]


@pytest.mark.parametrize(
    "freeze", ["all", ["all"], "encoder.*", "enc*", [f"encoder.{part}.*" for part in PARTS]]
)
def test_a_frozen_encoder_is_looked_up_however_it_is_spelled(make, freeze):
    """No dropout, no Transformer in a step, no gradient of ``rec``, no encoder in the snapshot."""
    net, loaders = make(freeze=freeze)
    net.refresh_memory()
    net.train()
    assert net.training and not net.encoder.training and net.retrieval.training
    net.encoder.forward = None  # nothing is encoded in a step
    losses = net.losses(first_batch(loaders[0]))
    assert not losses["rec"].requires_grad and losses["enhanced"].requires_grad
    blocks = net.retrieval.retriever.blocks
    assert net.memory_weights.numel() == sum(p.numel() for p in blocks.parameters())


@pytest.mark.parametrize("freeze", ["none", [f"encoder.{part}.*" for part in PARTS[:-1]]])
def test_an_encoder_that_trains_in_part_has_dropout_and_is_in_the_snapshot(make, freeze):
    net, _ = make(freeze=freeze)
    assert net.train().encoder.training
    assert net.memory_weights.numel() > net.item_weight.numel()


def test_the_freeze_callback_thaws_what_the_model_left_to_train(make):
    net, loaders = make(freeze="none")
    (freeze,) = build_callbacks(
        [{"Freeze": {"rules": [{"pattern": "encoder.*", "until_epoch": 1}]}}]
    )
    state = TrainState(net, torch.optim.SGD(net.parameters(), lr=0.1), 2, steps_per_epoch=1)
    freeze.on_fit_start(state)
    for epoch, is_frozen in enumerate((True, False)):
        state.epoch = epoch
        net.train()
        freeze.on_batch_start(state)
        assert net.encoder.training is not is_frozen
        net.calculate_loss(first_batch(loaders[0])).backward()
        assert (net.item_weight.grad is None) is is_frozen


def test_an_encoder_unfrozen_behind_freeze_all_is_an_error(make):
    net, loaders = make()
    net.encoder.LayerNorm.weight.requires_grad_()
    with pytest.raises(UserError, match="unfroze it; set freeze: none"):
        net.losses(first_batch(loaders[0]))


def test_parts_are_frozen_by_name(make):
    net, loaders = make(freeze=["encoder.item_embedding.*", "encoder.position_embedding.*"])
    before = copy.deepcopy(net.encoder.state_dict())
    train(net, loaders[0])
    after = net.encoder.state_dict()
    assert torch.equal(after["item_embedding.weight"], before["item_embedding.weight"])
    assert not torch.equal(after["LayerNorm.weight"], before["LayerNorm.weight"])
    with pytest.raises(UserError, match="'encodr.\\*' matches no parameter.*did you mean"):
        make(freeze="encodr.*")
