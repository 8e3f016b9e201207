from __future__ import annotations

from typing import Any

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit, new_state, new_toy, weights

from recbole_ext.callbacks.alternate import Alternate
from recbole_ext.types import TrainState, UserError

WARM = {"name": "warm", "train": ["head.*", "aux_head.*"], "epochs": 1}
ALL = {"name": "all"}


class TestContract(CallbackContract):
    name = "Alternate"
    arguments = {"phases": [WARM, {"name": "rec", "losses": ["rec"], "steps": 6}, ALL]}
    neutral = {"phases": [ALL]}


class TestContractCycle(CallbackContract):
    name = "Alternate"
    arguments = {
        "phases": [
            {"name": "head", "train": "*head.*", "steps": 3},
            {"name": "body", "train": ["encoder.*"], "losses": ["aux"], "steps": 2},
        ],
        "cycle": True,
    }
    neutral = {"phases": [{"name": "one", "epochs": 1}], "cycle": True}


class TestContractPlateau(CallbackContract):
    name = "Alternate"
    arguments = {
        "phases": [
            {
                **WARM,
                "epochs": None,
                "until": {"metric": "recall@10", "patience": 1, "mode": "min"},
            },
            ALL,
        ]
    }


class TestContractThatStops(CallbackContract):
    name, arguments = "Alternate", {"phases": [WARM, {"name": "last", "epochs": 2}]}


def phases_by_step(phases: list[dict[str, Any]], **more: Any) -> list[str]:
    """Return the phase of each optimizer step."""
    callback = Alternate(phases, cycle=more.pop("cycle", False))
    names = Record(lambda state: callback.phase.name, "on_batch_end")
    fit([callback, names], **more)
    return names.seen


def validate(callback: Alternate, state: TrainState, value: float) -> None:
    state.metrics = {"ndcg@10": value}
    callback.on_epoch_end(state)
    callback.on_valid_end(state)


def test_phases_of_epochs() -> None:
    found = phases_by_step([WARM, {"name": "mid", "epochs": 2}, ALL], epochs=5)
    assert found == ["warm"] * 4 + ["mid"] * 8 + ["all"] * 8


def test_phases_of_steps_end_within_an_epoch() -> None:
    found = phases_by_step([{"name": "a", "steps": 6}, {"name": "b", "steps": 1}, ALL], epochs=3)
    assert found == ["a"] * 6 + ["b"] + ["all"] * 5


def test_a_phase_of_epochs_that_begins_within_one_has_its_whole_epochs_after_it() -> None:
    found = phases_by_step([{"name": "a", "steps": 6}, {"name": "b", "epochs": 1}, ALL], epochs=4)
    assert found == ["a"] * 6 + ["b"] * (2 + 4) + ["all"] * 4


def test_a_phase_of_epochs_after_one_of_steps_that_fills_its_epoch() -> None:
    found = phases_by_step([{"name": "a", "steps": 4}, {"name": "b", "epochs": 1}, ALL], epochs=3)
    assert found == ["a"] * 4 + ["b"] * 4 + ["all"] * 4


def test_a_cycle_begins_again() -> None:
    phases = [{"name": "a", "steps": 1}, {"name": "b", "steps": 2}]
    assert phases_by_step(phases, cycle=True, epochs=2) == ["a", "b", "b"] * 2 + ["a", "b"]
    phases = [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 2}]
    found = phases_by_step(phases, cycle=True, epochs=4)
    assert found == ["a"] * 4 + ["b"] * 8 + ["a"] * 4


def test_a_phase_ends_at_its_plateau() -> None:
    rule = {"metric": "NDCG@10", "patience": 2, "min_delta": 0.05}
    callback = Alternate([{"name": "a", "until": rule}, ALL])
    state = new_state()
    callback.on_fit_start(state)
    found = []
    for state.epoch, value in enumerate([0.1, 0.2, 0.21, 0.3, 0.3, 0.34, 0.9]):
        callback.on_epoch_start(state)
        found.append(state.phase)
        validate(callback, state, value)
    # 0.1 and 0.2 and 0.3 are gains; 0.3 again and 0.34 are none, which is patience 2.
    assert found == ["a"] * 6 + ["all"]


def test_only_the_parameters_of_the_phase_move() -> None:
    phases = [
        {"name": "head", "train": ["head.*"], "steps": 2},
        {"name": "body", "train": ["encoder.[04].*", "aux_head.bias"], "steps": 1},
    ]
    before = {"": weights(new_toy())}
    moved: list[set[str]] = []

    def compare(state: TrainState) -> None:
        now = weights(state.model)
        moved.append({n for n in now if not torch.equal(now[n], before[""][n])})
        before[""] = now

    fit([Alternate(phases, cycle=True)], each_step=compare, epochs=2)
    head = {"head.weight", "head.bias"}
    # Batch norm's own parameters are frozen, and with them its running statistics.
    body = {f"encoder.{i}.{part}" for i in (0, 4) for part in ("weight", "bias")}
    for step, names in enumerate(moved):
        assert names == (body | {"aux_head.bias"} if step % 3 == 2 else head)


def test_losses_that_do_not_count_are_zeros_without_gradient() -> None:
    phases = [{"name": "rec", "losses": ["rec"], "steps": 3}, {"name": "aux", "losses": ["aux"]}]
    seen = Record(
        lambda s: {name: (float(v.detach()) == 0, v.requires_grad) for name, v in s.losses.items()},
        "on_loss",
    )
    gradients = Record(lambda s: s.model.aux_head.weight.grad is not None, "on_batch_end")
    fit([Alternate(phases), seen, gradients], epochs=1)
    out, counts = (True, False), (False, True)
    assert seen.seen == [{"rec": counts, "aux": out}] * 3 + [{"rec": out, "aux": counts}]
    assert list(seen.seen[0]) == ["rec", "aux"]  # the names, and their order, stay
    assert gradients.seen == [False] * 3 + [True]


def test_a_loss_that_does_not_count_may_be_infinite() -> None:
    class Broken(type(new_toy())):  # type: ignore[misc]
        def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            found = super().losses(batch)
            return {**found, "aux": found["aux"] * float("inf")}

    state = fit([Alternate([{"name": "a", "losses": ["rec"]}])], model=Broken(), epochs=1)
    assert all(torch.isfinite(p).all() for p in state.model.parameters())


def test_stages_set_the_phase_before_the_epoch_and_a_cycle_does_not() -> None:
    phases = [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 1}]
    names = Record(lambda state: state.phase, "on_epoch_start")
    fit([Alternate([*phases, ALL]), names])
    assert names.seen == ["a", "b", "all", "all"]
    names = Record(lambda state: state.phase, "on_batch_start")
    fit([Alternate(phases, cycle=True), names])
    assert names.seen == [None] * 16


@pytest.mark.parametrize(
    ("length", "n_steps"), [({"epochs": 2}, 12), ({"steps": 6}, 12), ({"steps": 4}, 8)]
)
def test_training_ends_with_the_last_phase(length: dict[str, Any], n_steps: int) -> None:
    state = fit([Alternate([WARM, {"name": "last", **length}])], epochs=9)
    assert state.step == n_steps  # a phase of steps ends training with its epoch
    assert state.stop == "Alternate: the last phase, 'last', is over"


def test_training_ends_with_the_plateau_of_the_last_phase() -> None:
    callback = Alternate([{"name": "a", "until": {"metric": "ndcg@10", "patience": 1}}])
    state = new_state()
    callback.on_fit_start(state)
    stops = []
    for state.epoch, value in enumerate([0.1, 0.2, 0.1]):
        callback.on_epoch_start(state)
        validate(callback, state, value)
        stops.append(state.stop is not None)
    assert stops == [False, False, True]


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([], "phases is empty"),
        ([{"epochs": 1}], r"phases\[0\] needs the argument 'name'"),
        ([{"name": "a", "epoch": 1}], "did you mean 'epochs'"),
        ([{"name": "a", "epochs": 0}], "epochs must be at least 1"),
        ([{"name": "a", "epochs": 1, "steps": 2}, ALL], "one of epochs, steps and until"),
        ([{"name": "a"}, ALL], "phase 'a' needs epochs, steps or until"),
        ([{"name": "a", "losses": "rec"}], "losses takes a list"),
        ([{"name": "a", "until": {"patience": 3}}], r"until needs the argument 'metric'"),
        ([{"name": "a", "until": {"metric": "x", "patiense": 3}}], "did you mean 'patience'"),
        ([{"name": "a", "until": {"metric": "x", "patience": 0}}], "patience must be at least 1"),
        ([{"name": "a", "epochs": 1}, {"name": "a"}], "each needs a name of its own, not a, a"),
    ],
)
def test_a_wrong_phase_is_named(phases: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Alternate(phases)


def test_every_phase_of_a_cycle_needs_an_end() -> None:
    with pytest.raises(UserError, match="phase 'all' needs epochs, steps or until"):
        Alternate([WARM, ALL], cycle=True)


def test_what_a_later_phase_names_is_checked_at_once() -> None:
    with pytest.raises(UserError, match=r"phases\[1\].train: 'decoder.\*' matches no"):
        fit([Alternate([WARM, {"name": "b", "train": ["decoder.*"]}])], epochs=0)
    with pytest.raises(UserError, match="phase 'b': the model has no loss 'auxx'; did you mean"):
        fit([Alternate([WARM, {"name": "b", "losses": ["auxx"]}])], epochs=1)


def test_a_plateau_needs_validation_data_and_a_metric_that_is_there() -> None:
    phases = [{"name": "a", "until": {"metric": "ncdg@10"}}, ALL]
    with pytest.raises(UserError, match="'until' needs validation data"):
        fit([Alternate(phases)], valid_data=None)
    with pytest.raises(UserError, match="phase 'a': .*'ncdg@10'; did you mean 'ndcg@10'"):
        fit([Alternate(phases)])


def test_nothing_to_train_on_is_an_error() -> None:
    phases = [{"name": "a", "train": ["aux_head.*"], "losses": ["rec"]}]
    with pytest.raises(UserError, match="in phase 'a' no loss that counts depends on"):
        fit([Alternate(phases)])
