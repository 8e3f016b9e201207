from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, assert_same, fit, new_toy, weights
from torch import nn

from recbole_ext.callbacks.alternate import Alternate
from recbole_ext.callbacks.freeze import Freeze, match_parameters, set_trainable
from recbole_ext.types import TrainState, UserError

ENCODER = {"encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"}
ENCODER |= {"encoder.4.weight", "encoder.4.bias"}


class TestContract(CallbackContract):
    name = "Freeze"
    arguments = {
        "rules": [
            {"pattern": "encoder.*", "until_epoch": 2},
            {"pattern": ["head.*", "aux_head.bias"], "from_step": 5, "until_step": 14},
        ]
    }
    neutral = {"rules": []}


class TestContractNeverInForce(CallbackContract):
    name = "Freeze"
    arguments = {"rules": [{"pattern": "encoder.*"}]}
    neutral = {"rules": [{"pattern": "*", "from_epoch": 9}, {"pattern": "*", "from_step": 999}]}


def trainable(state: TrainState) -> set[str]:
    return {name for name, p in state.model.named_parameters() if p.requires_grad}


def moved_each_step(callback: Any, **more: Any) -> list[set[str]]:
    """Return the names of what moved, parameters and buffers, step by step."""
    steps: list[set[str]] = []
    before: dict[str, torch.Tensor] = {}

    def compare(state: TrainState) -> None:
        now = weights(state.model)
        steps.append({n for n in now if not torch.equal(now[n], before.get(n, start[n]))})
        before.update(now)

    start = weights(new_toy())
    fit([callback], each_step=compare, **more)
    return steps


def test_set_trainable_changes_what_matches_and_says_what() -> None:
    model = new_toy()
    assert set_trainable(model, ["head.*", "encoder.0.b*"], False) == [
        "encoder.0.bias",
        "head.weight",
        "head.bias",
    ]
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.0.bias", "head.weight", "head.bias"}
    set_trainable(model, ["*.bias"], True)
    assert not model.head.weight.requires_grad and model.head.bias.requires_grad


def test_set_trainable_drops_the_gradient_of_what_it_freezes() -> None:
    model = new_toy()
    sum(parameter.sum() for parameter in model.parameters()).backward()
    set_trainable(model, ["encoder.*"], False)
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters()} - ENCODER


@pytest.mark.parametrize(
    ("pattern", "near"),
    [("encoder", "encoder.*"), ("haed.weight", "head.weight"), ("aux_hed.*", "aux_head.*")],
)
def test_a_pattern_that_matches_nothing_names_the_near_ones(pattern: str, near: str) -> None:
    with pytest.raises(UserError, match="matches no parameter of Toy") as error:
        set_trainable(new_toy(), [pattern], False)
    assert f"'{near}'" in str(error.value)


def test_a_rule_that_matches_nothing_is_an_error_before_the_first_batch() -> None:
    rules = [{"pattern": "head.*"}, {"pattern": "decoder.*", "from_epoch": 3}]
    with pytest.raises(UserError, match=r"Freeze.rules\[1\]: 'decoder.\*' matches no parameter"):
        fit([Freeze(rules)], epochs=0)


def test_matching_tells_upper_from_lower_case() -> None:
    with pytest.raises(UserError):
        match_parameters(new_toy(), ["HEAD.*"])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"patern": "head.*"}, "did you mean 'pattern'"),
        ({"from_epoch": 1}, r"Freeze.rules\[0\] needs the argument 'pattern'"),
        ({"pattern": 3}, "pattern takes a string or a list"),
        ({"pattern": "a", "until_epoch": "five"}, "until_epoch takes an integer or null"),
        ({"pattern": "a", "from_epoch": -1}, "from_epoch must be at least 0"),
        ({"pattern": "a", "from_epoch": 3, "until_epoch": 3}, "until_epoch must be at least 4"),
        ({"pattern": "a", "until_step": 0}, "until_step must be at least 1"),
    ],
)
def test_a_wrong_rule_is_named(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Freeze([rule])


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad"])
def test_what_is_frozen_does_not_move(optimizer: str) -> None:
    """Neither by weight decay nor by the momentum of the epochs before."""
    model = new_toy()
    more = {"momentum": 0.9} if optimizer in ("SGD", "RMSprop") else {}
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, weight_decay=0.1, **more)
    seen = Record(lambda state: weights(state.model), "on_batch_end")

    callback = Freeze([{"pattern": "encoder.*", "from_epoch": 1}])
    state = TrainState(model, chosen, total_epochs=2, steps_per_epoch=3)
    callback.on_fit_start(state)
    batch = torch.randn(8, 6)
    for state.step in range(6):
        state.epoch = state.step // 3
        model.train()
        chosen.zero_grad()
        callback.on_batch_start(state)
        sum(model.losses(batch).values()).backward()
        chosen.step()
        seen.on_batch_end(state)
    after_first, *frozen = seen.seen[2:]
    for later in frozen:
        names = [name for name in later if name.startswith("encoder.")]
        assert_same({n: later[n] for n in names}, {n: after_first[n] for n in names})
    assert not torch.equal(frozen[-1]["head.weight"], after_first["head.weight"])
    moved = seen.seen[1]["encoder.0.weight"] != seen.seen[0]["encoder.0.weight"]
    assert moved.any()  # it did move while it was not frozen


def test_rules_by_epoch_and_by_step() -> None:
    rules = [
        {"pattern": "encoder.0.*", "until_epoch": 2},  # epochs 0 and 1
        {"pattern": "encoder.4.*", "until_step": 6},  # steps 0 to 5, ends within epoch 1
        {"pattern": "aux_head.*", "from_epoch": 1, "until_epoch": 2},
    ]
    steps = moved_each_step(Freeze(rules), epochs=3)
    for step, moved in enumerate(steps):
        assert ("encoder.0.weight" in moved) == (step >= 8)
        assert ("encoder.4.weight" in moved) == (step >= 6)
        assert ("aux_head.weight" in moved) == (step not in (4, 5, 6, 7))
        assert "head.weight" in moved


def test_bounds_in_epochs_and_steps_hold_together() -> None:
    rule = {"pattern": "head.*", "from_epoch": 1, "until_step": 6}
    frozen = [
        s for s, moved in enumerate(moved_each_step(Freeze([rule]))) if "head.bias" not in moved
    ]
    assert frozen == [4, 5]


def test_what_two_rules_freeze_trains_when_neither_holds() -> None:
    rules = [{"pattern": "head.*", "until_step": 3}, {"pattern": "*head.weight", "until_step": 5}]
    steps = moved_each_step(Freeze(rules), epochs=2)
    assert [s for s, moved in enumerate(steps) if "head.weight" in moved] == [5, 6, 7]
    assert [s for s, moved in enumerate(steps) if "head.bias" in moved] == [3, 4, 5, 6, 7]


def test_a_part_that_is_all_frozen_is_in_eval_mode() -> None:
    rules = [{"pattern": "encoder.*", "until_step": 6}]
    modes = Record(
        lambda s: (s.model.training, s.model.encoder.training, s.model.encoder[3].training),
        "on_batch_end",
    )
    steps = moved_each_step(Freeze(rules))
    fit([Freeze(rules), modes], epochs=2)
    # Step 6 is in the middle of an epoch, where nobody else calls train().
    assert modes.seen == [(True, False, False)] * 6 + [(True, True, True)] * 2
    statistics = ["encoder.1.running_mean" in moved for moved in steps[:8]]
    assert statistics == [False] * 6 + [True] * 2


def test_a_part_that_is_partly_frozen_is_in_train_mode() -> None:
    modes = Record(
        lambda s: (s.model.encoder.training, s.model.encoder[0].training), "on_batch_end"
    )
    fit([Freeze([{"pattern": "encoder.[01].*"}]), modes], epochs=1)
    assert modes.seen == [(True, False)] * 4


def test_progressive_unfreezing_within_an_epoch() -> None:
    rules = [
        {"pattern": "encoder.0.*", "until_step": 3},
        {"pattern": "encoder.[14].*", "until_step": 2},
    ]
    modes = Record(
        lambda s: (
            s.model.encoder.training,
            s.model.encoder[0].training,
            s.model.encoder[3].training,
        ),
        "on_batch_end",
    )
    fit([Freeze(rules), modes], epochs=1)
    # While two rules together freeze all of the encoder, its dropout is off too.
    assert modes.seen == [(False, False, False)] * 2 + [(True, False, True), (True, True, True)]


def test_what_the_model_froze_itself_stays_frozen() -> None:
    model = new_toy()
    model.head.weight.requires_grad_(False)
    fit([Freeze([{"pattern": "head.*", "until_epoch": 1}])], model=model)
    assert_same(
        {"head.weight": model.head.weight.detach()},
        {"head.weight": new_toy().head.weight.detach()},
    )
    assert not torch.equal(model.head.bias, new_toy().head.bias)


def test_two_callbacks_that_freeze_the_same() -> None:
    """It trains when both let it, in whatever order they stand."""
    freeze = lambda: Freeze([{"pattern": "head.*", "until_step": 6}])  # noqa: E731
    phases = [{"name": "a", "train": ["encoder.*"], "steps": 3}, {"name": "b"}]
    late = [{"name": "a", "train": ["encoder.*"], "steps": 10}, {"name": "b"}]
    for chosen, first_step in ((phases, 6), (late, 10)):
        for order in (0, 1):
            both = [freeze(), Alternate(chosen)]
            seen = Record(lambda s: "head.weight" in trainable(s), "on_batch_end")
            modes = Record(lambda s: s.model.head.training, "on_batch_end")
            fit([both[order], both[1 - order], seen, modes])
            assert seen.seen == [False] * first_step + [True] * (16 - first_step)
            assert modes.seen == seen.seen


def test_one_that_wakes_a_part_leaves_what_another_holds_in_eval_mode() -> None:
    alternate = Alternate([{"name": "a", "train": ["encoder.0.*", "head.*", "aux_head.*"]}])
    freeze = Freeze([{"pattern": "encoder.*", "until_step": 2}])
    modes = Record(
        lambda s: (s.model.encoder[0].training, s.model.encoder[4].training), "on_batch_end"
    )
    fit([alternate, freeze, modes], epochs=1)
    assert modes.seen == [(False, False)] * 2 + [(True, False)] * 2


def test_a_parameter_with_two_names_is_frozen_by_either() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.b.weight = self.a.weight

        def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"rec": self.b(self.a(batch[:, :2])).square().mean(), "aux": self.a.bias.sum()}

    for pattern in ("a.weight", "b.weight"):
        model = Tied()
        before = copy.deepcopy(model)
        fit([Freeze([{"pattern": pattern}])], model=model, epochs=1)
        assert torch.equal(model.a.weight, before.a.weight)
        assert not torch.equal(model.b.bias, before.b.bias)


def test_two_callbacks_may_change_places_in_one_step() -> None:
    """For a moment, between the two, everything is frozen."""
    phases = [
        {"name": "a", "train": ["*head.*"], "steps": 3},
        {"name": "b", "train": ["encoder.*"]},
    ]
    freeze = Freeze([{"pattern": "encoder.*", "until_step": 3}])
    seen = Record(trainable, "on_batch_end")
    fit([Alternate(phases), freeze, seen], epochs=1)
    heads = {"head.weight", "head.bias", "aux_head.weight", "aux_head.bias"}
    assert seen.seen == [heads] * 3 + [ENCODER]
