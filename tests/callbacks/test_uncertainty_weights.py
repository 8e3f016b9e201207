from __future__ import annotations

import math

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, count_reads, fit, new_state, new_toy
from torch import Tensor, nn

from recbole_ext.callbacks.alternate import Alternate
from recbole_ext.callbacks.uncertainty_weights import UncertaintyWeights
from recbole_ext.types import TrainState, UserError


class TestContract(CallbackContract):
    name, arguments = "UncertaintyWeights", {"names": ["rec", "aux"]}
    neutral = {"names": []}


class TestContractClamped(CallbackContract):
    name = "UncertaintyWeights"
    arguments = {"names": ["aux"], "min_log_variance": -0.02, "max_log_variance": 0.02}


class Scales(nn.Module):
    """Losses that no parameter lowers: only the log-variances can learn."""

    def __init__(self, **values: float) -> None:
        super().__init__()
        self.values = values
        self.unused = nn.Parameter(torch.zeros(()))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {name: value + 0 * self.unused for name, value in self.values.items()}


def learned(model: nn.Module, callback: UncertaintyWeights, n_steps: int) -> dict[str, float]:
    """Take steps of plain gradient descent; return the log-variances."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=0.5)
    state = TrainState(model, optimizer, total_epochs=1, steps_per_epoch=n_steps)
    callback.on_fit_start(state)
    for _ in range(n_steps):
        optimizer.zero_grad()
        state.losses = model.losses(None)
        callback.on_loss(state)
        sum(state.losses.values()).backward()
        optimizer.step()
        callback.on_batch_end(state)
    return {name: s.item() for name, s in callback.log_variances.items()}


def test_a_loss_becomes_the_term_of_the_paper() -> None:
    """With sigma the standard deviation: L / sigma^2 + log sigma."""
    callback = UncertaintyWeights(["rec", "aux"])
    state = new_state(Scales(rec=3.0, aux=0.2, other=7.0))
    callback.on_fit_start(state)
    sigma = {"rec": 1.7, "aux": 0.4}
    callback.load_state_dict({name: torch.tensor(2 * math.log(s)) for name, s in sigma.items()})
    state.losses = state.model.losses(torch.empty(0))
    callback.on_loss(state)
    for name, loss in {"rec": 3.0, "aux": 0.2}.items():
        expected = loss / sigma[name] ** 2 + math.log(sigma[name])
        assert state.losses[name].item() == pytest.approx(expected, rel=1e-6)
    assert state.losses["other"].item() == 7.0


def test_a_log_variance_goes_to_its_optimum() -> None:
    """d/ds (exp(-s) L + s / 2) = 0 at exp(s) = 2 L, weight decay or not."""
    values = {"rec": 3.0, "aux": 0.2}
    found = learned(Scales(**values), UncertaintyWeights(["rec", "aux"]), 400)
    for name, loss in values.items():
        assert found[name] == pytest.approx(math.log(2 * loss), abs=1e-4)


def test_a_log_variance_stays_in_its_range_and_comes_back() -> None:
    values = {"rec": 3.0, "aux": 0.0}
    callback = UncertaintyWeights(["rec", "aux"], min_log_variance=-1.5, max_log_variance=0.7)
    model = Scales(**values)
    found = learned(model, callback, 100)
    assert found == {"rec": pytest.approx(0.7), "aux": -1.5}  # log 6, and minus infinity
    model.values = {"rec": 0.5, "aux": 0.5}  # the optimum is 0 now
    found = learned_on(model, callback)
    assert found == {"rec": pytest.approx(0, abs=1e-3), "aux": pytest.approx(0, abs=1e-3)}


def learned_on(model: Scales, callback: UncertaintyWeights) -> dict[str, float]:
    """Go on from where the log-variances are."""
    parameters = list(callback.log_variances.values())
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    state = TrainState(model, optimizer, total_epochs=1, steps_per_epoch=1)
    for _ in range(100):
        optimizer.zero_grad()
        state.losses = model.losses(torch.empty(0))
        callback.on_loss(state)
        sum(state.losses.values()).backward()
        optimizer.step()
        callback.on_batch_end(state)
    return {name: s.item() for name, s in callback.log_variances.items()}


def test_they_are_in_the_optimizer_without_weight_decay() -> None:
    callback, state = UncertaintyWeights(["rec", "aux"]), new_state()
    callback.on_fit_start(state)
    first, second = state.optimizer.param_groups
    assert first["weight_decay"] > 0 and second["weight_decay"] == 0
    assert [id(p) for p in second["params"]] == [id(s) for s in callback.log_variances.values()]
    assert not set(state.model.state_dict()) - set(new_toy().state_dict())


def test_a_loss_that_is_put_aside_moves_nothing() -> None:
    phases = [{"name": "both", "steps": 4}, {"name": "rec", "losses": ["rec"]}]
    callback = UncertaintyWeights(["rec", "aux"])
    seen = Record(
        lambda s: {n: v.item() for n, v in callback.log_variances.items()}, "on_batch_end"
    )
    zeros = Record(lambda s: s.losses["aux"].item() == 0, "on_batch_end")
    fit([Alternate(phases), callback, seen, zeros], epochs=2)
    aux, rec = ([step[name] for step in seen.seen] for name in ("aux", "rec"))
    # The notes of a step are made before the clamp, in reverse order, which is out of play here.
    assert len(set(aux[:4])) == 4 and len(set(aux[4:])) == 1 and len(set(rec)) == 8
    assert zeros.seen == [False] * 4 + [True] * 4


def test_a_negative_loss_is_refused() -> None:
    with pytest.raises(UserError, match=r"the loss 'aux' is negative \(-0.5\)"):
        fit([UncertaintyWeights(["aux"])], model=Scales(rec=1.0, aux=-0.5))


def test_a_loss_that_becomes_negative_is_refused_at_the_end_of_the_epoch() -> None:
    class Falling(Scales):
        def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            self.values = {name: value - 1.0 for name, value in self.values.items()}
            return super().losses(batch)

    steps = Record(lambda state: state.step, "on_batch_end")
    with pytest.raises(UserError, match=r"the loss 'rec' is negative \(-1.5\)"):
        fit([UncertaintyWeights(["rec"]), steps], model=Falling(rec=2.5), valid_data=None)
    assert steps.seen == [1, 2, 3, 4]


def test_nothing_is_read_but_at_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    model, callback = Scales(rec=1.0, aux=2.0), UncertaintyWeights(["rec", "aux"])
    state = new_state(model)
    callback.on_fit_start(state)
    for _ in range(20):
        state.losses = model.losses(torch.empty(0))
        callback.on_loss(state)
        callback.on_batch_end(state)
    assert reads == ["item", "item"]


def test_an_unknown_loss_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no loss 'auxx'; did you mean 'aux'"):
        fit([UncertaintyWeights(["auxx"])])


def test_a_range_without_its_beginning_is_refused() -> None:
    with pytest.raises(UserError, match="begin at 0, which is not between"):
        UncertaintyWeights(["rec"], min_log_variance=1.0)
    with pytest.raises(UserError, match="begin at 0, which is not between"):
        UncertaintyWeights(["rec"], max_log_variance=float("nan"))
