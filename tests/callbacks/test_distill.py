from __future__ import annotations

import math

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit, new_state
from torch import nn

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.callbacks.distill import Distill
from recbole_ext.types import UserError

BOTH = [
    {"teacher": "rec", "student": "aux", "weight": 0.5},
    {
        "teacher": "aux",
        "student": "rec",
        "weight": {"kind": "linear", "start": 0.0, "end": 1.0, "until": 8},
    },
]


class TestContract(CallbackContract):
    name, arguments = "Distill", {"pairs": BOTH, "margin": 0.0}  # one is always the better
    neutral = {"pairs": BOTH, "margin": 50.0}  # nobody is ever so much better than another


class TwoHeads(nn.Module):
    """Two sets of scores of three rows, five candidates."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.one = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.two = nn.Parameter(torch.randn(3, 5, generator=generator))

    @property
    def score_sets(self):
        return {"one": self.one, "two": self.two}


def by_hand(student, teacher, temperature):
    """Return the term in plain numbers."""
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        s, t = (
            [
                (x - sum(row) / 5) / (sum((y - sum(row) / 5) ** 2 for y in row) / 5) ** 0.5
                for x in row
            ]
            for row in (s, t)
        )
        p, q = ([math.exp(x / temperature) for x in row] for row in (t, s))
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / 3


def test_the_terms_are_those_of_the_paper_and_teachers_get_no_gradient():
    model = TwoHeads()
    state = new_state(model)
    state.losses = {}
    callback = Distill([{"teacher": "one", "student": "two", "weight": 0.3}], 2.5, margin=-9.0)
    callback.on_fit_start(state)
    callback.on_loss(state)
    wanted = 0.3 * by_hand(model.two, model.one, 2.5)
    assert float(state.losses["distill_two"]) == pytest.approx(wanted, rel=1e-5)
    state.losses["distill_two"].backward()
    assert model.one.grad is None and model.two.grad.abs().sum() > 0


def test_scales_say_nothing():
    model = TwoHeads()
    state = new_state(model)
    found = []
    for scale in (1.0, 50.0):
        with torch.no_grad():
            model.one.mul_(scale).add_(scale)
        state.losses = {}
        callback = Distill([{"teacher": "one", "student": "two"}], margin=-9.0)
        callback.on_loss(state)
        found.append(float(state.losses["distill_two"]))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_teacher_is_silent_until_it_is_better_than_chance():
    model = TwoHeads()
    with torch.no_grad():
        model.one[:, 0] = -3.0  # the positive is the worst
    state = new_state(model)
    callback = Distill([{"teacher": "one", "student": "two"}], base="chance", momentum=0.5)
    seen = []
    for step in range(12):
        if step == 3:
            with torch.no_grad():
                model.one[:, 0] = 5.0
        state.losses = {}
        callback.on_loss(state)
        seen.append(float(state.losses["distill_two"]) > 0)
    # the average, not the moment, is compared: it takes some steps to come down
    assert seen[:4] == [False] * 4 and seen[-1] and seen == sorted(seen)


def softmax_loss(scores):
    """Return -log softmax of the first of the standardised scores, in plain numbers."""
    total = 0.0
    for row in scores.tolist():
        mean = sum(row) / 5
        std = (sum((x - mean) ** 2 for x in row) / 5) ** 0.5
        z = [(x - mean) / std for x in row]
        total += math.log(sum(math.exp(x) for x in z)) - z[0]
    return total / 3


def test_a_teacher_is_silent_until_it_is_better_than_its_student():
    """Both ways, against the rule written out: of two who differ one teaches."""
    model, margin = TwoHeads(), 0.1
    state = new_state(model)
    pairs = [{"teacher": "one", "student": "two"}, {"teacher": "two", "student": "one"}]
    callback = Distill(pairs, margin=margin, momentum=0.5)
    averages, seen, wanted = {}, [], []
    for step in range(12):
        with torch.no_grad():  # one begins as the worse, and becomes the better
            model.one[:, 0], model.two[:, 0] = 0.3 * step, 1.5
        state.losses = {}
        callback.on_loss(state)
        seen.append([float(state.losses[f"distill_{n}"]) > 0 for n in ("two", "one")])
        for name, scores in model.score_sets.items():
            now = softmax_loss(scores)
            averages[name] = 0.5 * averages.get(name, now) + 0.5 * now
        gap = averages["two"] - averages["one"]
        wanted.append([gap > margin, gap < -margin])
    assert seen == wanted
    assert [False, True] in wanted and [False, False] in wanted and [True, False] in wanted


def test_students_move_towards_their_teachers():
    weights = Record(lambda state: state.losses["distill_aux"].item(), "on_batch_end")
    pairs = [{"teacher": "rec", "student": "aux", "weight": 30.0}]
    fit([Distill(pairs, margin=-9.0), weights], epochs=6)
    assert sum(weights.seen[-4:]) < 0.5 * sum(weights.seen[:4])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pairs": []}, "Distill.pairs is empty"),
        ({"pairs": [{"teacher": "a"}]}, "Distill.pairs.0. needs .*'student'"),
        ({"pairs": [{"teacher": "a", "student": "a"}]}, "'a' cannot teach itself"),
        ({"pairs": BOTH, "temperature": 0.0}, "temperature 0.0 must be above 0"),
        ({"pairs": BOTH, "momentum": 1.0}, "momentum 1.0 between 0 and 1"),
    ],
)
def test_what_cannot_be_meant(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        Distill(**arguments)


def test_a_base_that_is_none():
    with pytest.raises(UserError, match="Distill: base takes .*'studnet'.*did you mean 'student'"):
        build_callbacks([{"Distill": {"pairs": BOTH, "base": "studnet"}}])


def test_names_that_are_not_there():
    with pytest.raises(UserError, match="there are no scores 'ones'; did you mean 'one'"):
        state = new_state(TwoHeads())
        Distill([{"teacher": "ones", "student": "two"}]).on_loss(state)
    with pytest.raises(UserError, match="Linear keeps no score_sets"):
        Distill([{"teacher": "one", "student": "two"}]).on_loss(new_state(nn.Linear(1, 1)))
