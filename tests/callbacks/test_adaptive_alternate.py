from __future__ import annotations

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit, new_state, new_toy, weights

from recbole_ext.callbacks.adaptive_alternate import AdaptiveAlternate
from recbole_ext.callbacks.alternate import Alternate
from recbole_ext.types import UserError

PARTS = [
    {"name": "main", "train": ["encoder.*", "head.*"], "losses": ["rec"]},
    {"name": "side", "train": "aux_head.*", "losses": ["aux"]},
]


class TestContract(CallbackContract):
    name = "AdaptiveAlternate"
    arguments = {"parts": PARTS, "min_steps": 2, "max_steps": 5, "threshold": 0.02}


def run(callback, epochs=6, **more):
    """Return what moved in each step: the part names, and the state."""
    before = {}
    moved = []

    def look(state):
        now = weights(state.model)
        names = [n for n, p in state.model.named_parameters() if not torch.equal(now[n], before[n])]
        moved.append({name.split(".")[0] for name in names})
        before.update(now)

    model = new_toy()
    before.update(weights(model))
    state = fit([callback], epochs=epochs, model=model, each_step=look, **more)
    return moved, state


def test_one_part_at_a_time():
    callback = AdaptiveAlternate(PARTS, min_steps=3, max_steps=3)
    moved, _ = run(callback, epochs=3)
    main, side = {"encoder", "head"}, {"aux_head"}
    assert moved == [main] * 3 + [side] * 3 + [main] * 3 + [side] * 3
    assert [s["step"] for s in callback.switches] == [3, 6, 9]
    assert [(s["from"], s["to"]) for s in callback.switches[:2]] == [
        ("main", "side"),
        ("side", "main"),
    ]
    assert callback.switches[0]["why"] == "3 steps"


def test_a_turn_lasts_while_the_objective_comes_down():
    """Against the same rule written out over the losses of each step."""
    seen = Record(lambda state: {n: loss.item() for n, loss in state.losses.items()}, "on_loss")
    callback = AdaptiveAlternate(PARTS, threshold=0.05, momentum=0.5, min_steps=2, max_steps=9)
    fit([seen, callback], epochs=12)  # the record is before: it sees what the model gave
    turn, since, looked, before, wanted = 0, 0, 0, None, []
    averages = [None, None]
    for step, losses in enumerate(seen.seen):
        is_over = step - since >= 9
        if step - looked >= 2:
            is_over = is_over or (before - averages[turn]) / abs(before) < 0.05
            looked, before = step, averages[turn]
        if is_over:
            wanted.append(step)
            turn, since, looked = 1 - turn, step, step
            before = averages[turn]  # what its last turn left
        value = losses["rec" if turn == 0 else "aux"]
        old = averages[turn]
        averages[turn] = value if old is None else 0.5 * old + 0.5 * value
        before = averages[turn] if before is None else before
    assert [s["step"] for s in callback.switches] == wanted
    lengths = {b - a for a, b in zip([0, *wanted], wanted, strict=False)}
    assert len(lengths) > 1, "turns of different lengths, or the rule is not seen"


def test_the_longest_turn_is_kept_to_the_step():
    callback = AdaptiveAlternate(PARTS, threshold=-9.0, min_steps=2, max_steps=3)  # none stands
    fit([callback], epochs=3)
    assert [s["step"] for s in callback.switches] == [3, 6, 9]


def test_the_first_look_of_a_turn_can_end_it():
    callback = AdaptiveAlternate(PARTS, threshold=0.999, min_steps=2, max_steps=9)  # all stand
    fit([callback], epochs=2)
    assert [s["step"] for s in callback.switches] == [2, 4, 6]
    assert callback.switches[0]["why"].startswith("gained ")


def test_the_average_of_a_part_rests_while_another_trains():
    callback = AdaptiveAlternate(PARTS, min_steps=4, max_steps=4)
    seen = Record(
        lambda state: {n: float(v) for n, v in callback.state_dict()["averages"].items()},
        "on_batch_end",
    )
    fit([callback, seen], epochs=3)
    first, second = ([values.get(name) for values in seen.seen] for name in ("main", "side"))
    assert len(set(first[3:8])) == 1 and len(set(first[:4])) == 4
    assert second[:4] == [None] * 4  # none before its first turn
    assert len(set(second[7:12])) == 1 and len(set(second[4:8])) == 4


def test_it_acts_in_its_phase_only():
    phases = [{"name": "first", "epochs": 1}, {"name": "second"}]
    callback = AdaptiveAlternate(PARTS, min_steps=2, max_steps=2, phase="second")
    before = {}
    moved = []

    def look(state):
        now = weights(state.model)
        moved.append({n.split(".")[0] for n in before if not torch.equal(now[n], before[n])})
        before.update({name: now[name] for name, _ in state.model.named_parameters()})

    model = new_toy()
    before.update({name: p.detach().clone() for name, p in model.named_parameters()})
    fit([Alternate(phases), callback], epochs=2, model=model, each_step=look)
    everything, main, side = {"encoder", "head", "aux_head"}, {"encoder", "head"}, {"aux_head"}
    assert moved == [everything] * 4 + [main] * 2 + [side] * 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"parts": PARTS[:1]}, "needs two or more parts of different names"),
        ({"parts": [PARTS[0], PARTS[0]]}, "needs two or more parts of different names"),
        ({"parts": [{"name": "x"}, PARTS[1]]}, "parts.0. needs .*'train'"),
        ({"parts": PARTS, "min_steps": 0}, "min_steps"),
        ({"parts": PARTS, "min_steps": 5, "max_steps": 4}, "max_steps 4 must be min_steps 5"),
        ({"parts": PARTS, "momentum": 1.0}, "momentum 1.0 between 0 and 1"),
    ],
)
def test_what_cannot_be_meant(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        AdaptiveAlternate(**arguments)


def test_names_that_are_not_there():
    wrong = [PARTS[0], {**PARTS[1], "train": "aux_haed.*"}]
    with pytest.raises(UserError, match="'aux_haed.*' matches no parameter of Toy; did you mean"):
        AdaptiveAlternate(wrong).on_fit_start(new_state())
    wrong = [PARTS[0], {**PARTS[1], "losses": ["auxx"]}]
    with pytest.raises(UserError, match="has no loss 'auxx'; did you mean 'aux'"):
        fit([AdaptiveAlternate(wrong)], epochs=1)
