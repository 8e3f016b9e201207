from __future__ import annotations

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, assert_same, fit, weights

from recbole_ext.callbacks.loss_curriculum import LossCurriculum
from recbole_ext.types import TrainState, UserError

RAMP = {"kind": "linear", "start": 0.0, "end": 1.0, "until": 4}


class TestContract(CallbackContract):
    name, arguments = "LossCurriculum", {"weights": {"aux": RAMP}, "by": "step"}
    neutral = {"weights": {}}


class TestContractByEpoch(CallbackContract):
    name, arguments = "LossCurriculum", {"weights": {"aux": RAMP, "rec": 0.5}}
    neutral = {"weights": {"rec": 1, "aux": 1.0}}


def weight_of(name: str) -> tuple[Record, Record]:
    """Return what notes the loss before and after, around the callback in a list."""
    before = Record(lambda state: float(state.losses[name].detach()), "on_loss")
    after = Record(lambda state: float(state.losses[name].detach()), "on_loss")
    return before, after


@pytest.mark.parametrize(("by", "expected"), [("epoch", [0, 0.25, 0.5]), ("step", None)])
def test_a_loss_is_multiplied_by_its_schedule(by: str, expected: list[float] | None) -> None:
    before, after = weight_of("aux")
    curriculum = LossCurriculum({"aux": RAMP}, by=by)  # type: ignore[arg-type]
    fit([before, curriculum, after], epochs=3)
    factors = (
        [e for e in expected for _ in range(4)] if expected else [0, 0.25, 0.5, 0.75] + [1] * 8
    )
    for raw, weighted, factor in zip(before.seen, after.seen, factors, strict=True):
        assert weighted == pytest.approx(raw * factor, rel=1e-6)


def test_the_other_losses_stay_as_they_are() -> None:
    before, after = weight_of("rec")
    fit([before, LossCurriculum({"aux": 0.3}), after], epochs=1)
    assert after.seen == before.seen


def test_the_gradient_is_that_of_the_weighted_sum() -> None:
    gradients: dict[str, torch.Tensor] = {}

    def keep(state: TrainState) -> None:
        if state.step == 1:
            gradients.update({n: p.grad.clone() for n, p in state.model.named_parameters()})

    fit([LossCurriculum({"aux": 0.25, "rec": 3})], epochs=1, each_step=keep)
    plain: dict[str, torch.Tensor] = {}

    class Weighted(LossCurriculum):
        def on_loss(self, state: TrainState) -> None:
            if not plain:
                parameters = dict(state.model.named_parameters())
                total = 3 * state.losses["rec"] + 0.25 * state.losses["aux"]
                found = torch.autograd.grad(total, list(parameters.values()), retain_graph=True)
                plain.update(zip(parameters, found, strict=True))

    fit([Weighted({})], epochs=1)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain[name])


def test_an_unknown_loss_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no loss 'auxx'; did you mean 'aux'.*it has rec, aux"):
        fit([LossCurriculum({"auxx": 1})], epochs=1)


def test_a_wrong_schedule_is_named_when_it_is_built() -> None:
    with pytest.raises(UserError, match="LossCurriculum.weights.aux: .*'linaer'"):
        LossCurriculum({"aux": {"kind": "linaer"}})


def test_it_changes_what_is_learned() -> None:
    plain, weighted = fit([]), fit([LossCurriculum({"rec": 0.0})])
    with pytest.raises(AssertionError):
        assert_same(weights(plain.model), weights(weighted.model))
