"""The fused optimizer against torch's loop; losses that nobody waits for; low precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from recbole_ext.models.accelerate import accelerated
from recbole_ext.trainer import batch_hooks, fast_step
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.trainer.fast_step import UnreadLoss, fuse, read
from recbole_ext.trainer.loose_state import LooseState
from recbole_ext.trainer.prefetch import OnDevice
from recbole_ext.types import UserError
from tests.trainer.training import prepare


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_fused_step_is_the_optimizers_own_up_to_rounding(kind):
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    ours = copy.deepcopy(theirs)
    a, b = (kind(net.parameters(), lr=0.1, weight_decay=0.01) for net in (theirs, ours))
    assert fuse(b) is b
    for _ in range(5):
        x = torch.randn(4, 5, dtype=torch.float64)
        for net, optimizer in ((theirs, a), (ours, b)):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    for expected, found in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_other_optimizers_stay_as_they_are():
    table = nn.Embedding(5, 2, sparse=True)
    for kind in (torch.optim.SparseAdam, torch.optim.SGD):
        optimizer = fuse(kind(table.parameters(), lr=0.1))
        assert not optimizer.param_groups[0].get("fused")
        table(torch.tensor([1, 1])).sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("model", "accelerate", "fused"),
    [("SASRec", False, None), ("SASRec", True, True), ("DuoRec", False, True)],
)
def test_recboles_models_get_it_only_with_accelerate(
    model, accelerate, fused, tiny_settings, tmp_path
):
    run = prepare(model, {**tiny_settings, "accelerate": accelerate}, tmp_path / "run")
    assert run.trainer.optimizer.param_groups[0]["fused"] is fused


@pytest.mark.parametrize("before", [False, True])
def test_a_resume_steps_as_this_run_would_and_keeps_the_moments(before, tiny_settings, tmp_path):
    folder = tmp_path / "run"
    prepare("SASRec", {**tiny_settings, "accelerate": before, "epochs": 1}, folder).fit()
    saved = read_checkpoint(folder / "last.pt")["optimizers"]["optimizer"]
    assert bool(saved["param_groups"][0]["fused"]) is before
    run = prepare("SASRec", {**tiny_settings, "accelerate": not before}, folder)
    fresh = {key: run.trainer.optimizer.param_groups[0][key] for key in ("fused", "foreach")}
    run.trainer.resume_from(folder / "last.pt")
    run.trainer.state.train_data = run.train
    run.trainer._loose = LooseState(run.model)
    run.trainer._restore(run.trainer._resumed)
    (group,) = run.trainer.optimizer.param_groups
    assert {key: group[key] for key in fresh} == fresh and bool(fresh["fused"]) is not before
    found = run.trainer.optimizer.state_dict()["state"]
    assert found.keys() == saved["state"].keys()
    for number, moments in saved["state"].items():
        assert all(torch.equal(found[number][key], value) for key, value in moments.items())
    run.fit()
    assert group["fused"] == fresh["fused"] and run.trainer.state.epoch == 1


def test_an_unread_loss_adds_up_to_the_bit_and_gives_its_gradient():
    x = torch.tensor([0.1, 0.2, 0.7], requires_grad=True)
    losses = [value.as_subclass(UnreadLoss) for value in x.exp()]
    total = sum(loss.item() for loss in losses)
    assert isinstance(total, torch.Tensor) and not total.requires_grad
    assert read(total) == sum(value.item() for value in x.exp().detach())
    sum(losses).backward()
    torch.testing.assert_close(x.grad, x.detach().exp())


def test_training_with_unread_losses_gives_the_same_epoch(tiny_settings, tmp_path, monkeypatch):
    """There need be no GPU: the CPU's losses are made unread."""
    sums, weights = [], []
    for number, make in enumerate((lambda x: x, as_unread)):
        monkeypatch.setattr(batch_hooks, "unread", make)
        run = prepare("DuoRec", tiny_settings, tmp_path / str(number))
        run.fit()
        sums.append(run.trainer.train_loss_dict)
        weights.append(run.model.state_dict())
    assert sums[0] == sums[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def as_unread(losses):
    if isinstance(losses, tuple):
        return tuple(map(as_unread, losses))
    return losses.as_subclass(UnreadLoss)


def test_a_loss_that_is_no_number_is_found_in_the_sum(tiny_settings, tmp_path):
    """On a GPU only every so often; ``meta`` stands for a device that is not the CPU."""
    trainer = prepare("DuoRec", tiny_settings, tmp_path / "run").trainer
    elsewhere = torch.zeros((), device="meta")
    trainer._loss_sums = {"rec": (torch.tensor(torch.nan), 3)}
    trainer.state.step = fast_step.NAN_CHECK_STEPS + 1
    trainer._check_nan(elsewhere)
    trainer.state.step = 2 * fast_step.NAN_CHECK_STEPS
    with pytest.raises(UserError, match="not a number"):
        trainer._check_nan(elsewhere)


def test_batches_on_their_way_are_the_loaders_batches(tiny_settings, tmp_path, monkeypatch):
    """``pin_memory`` needs CUDA, hence a stand-in here."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(1) or self)
    loader = prepare("SASRec", tiny_settings, tmp_path / "run").train
    wrapped = OnDevice(loader, torch.device("cpu"))
    assert len(wrapped) == len(loader) and wrapped.sampler is loader.sampler
    state = loader.generator.get_state()
    expected = list(loader)
    loader.generator.set_state(state)
    for found, batch in zip(wrapped, expected, strict=True):
        assert len(found) == len(batch) and found.columns == batch.columns
        assert all(torch.equal(found[name], batch[name]) for name in batch.columns)
    assert pinned


@pytest.mark.parametrize("contrast", ["us_x", "us"])
@pytest.mark.parametrize("train_on", ["prefix", "causal"])
def test_enable_amp_trains_our_model_near_float32(train_on, contrast, tiny_settings, tmp_path):
    losses = []
    for amp in (False, True):
        settings = {
            **tiny_settings,
            "enable_amp": amp,
            "train_on": train_on,
            "contrast": contrast,
            "epochs": 2,
        }
        run = prepare("DuoRec", settings, tmp_path / f"{amp}")
        run.fit()
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
        losses.append(run.trainer.train_loss_dict[1])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_enable_amp_trains_an_accelerated_model(tiny_settings, tmp_path):
    losses = []
    for amp in (False, True):
        settings = {**tiny_settings, "enable_amp": amp, "accelerate": True}
        run = prepare("SASRec", settings, tmp_path / f"{amp}")
        accelerated(run.model, run.config)
        run.fit()
        losses.append(run.trainer.train_loss_dict[1])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *(
            ("DuoRec", {"train_on": t, "contrast": c})
            for t in ("prefix", "causal")
            for c in ("us_x", "us")
        ),
        ("SASRec", {"accelerate": True}),
    ],
)
def test_gradients_in_low_precision_point_where_those_in_float32_do(
    model, settings, tiny_settings, tmp_path
):
    run = prepare(model, {**tiny_settings, **settings}, tmp_path / "run")
    net, batch = accelerated(run.model, run.config), next(iter(run.train))
    exact, low = (gradients_of_each_loss(net, batch, amp) for amp in (False, True))
    assert exact.keys() == low.keys()
    for name in exact:  # alone: the contrast is much steeper than the rest
        wanted, found = flat(exact[name]), flat(low[name])
        assert not torch.equal(found, wanted)
        assert cosine(found, wanted) > 0.99, name
        assert found.norm() == pytest.approx(wanted.norm().item(), rel=0.05), name


def gradients_of_each_loss(net, batch, amp):
    torch.manual_seed(0)  # the same dropout
    with torch.autocast("cpu", enabled=amp):  # as in RecBole's loop: bfloat16
        losses = (
            net.losses(batch) if hasattr(net, "losses") else {"loss": net.calculate_loss(batch)}
        )
    weights = list(net.parameters())
    return {
        name: torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
        for name, loss in losses.items()
    }


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def cosine(a, b):
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))
