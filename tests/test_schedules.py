from __future__ import annotations

import math
from typing import Any

import pytest

from recbole_ext.schedules import build_schedule
from recbole_ext.types import UserError

POINTS = [-3, 0, 0.5, 1, 2, 3.75, 4, 5, 9.99, 10, 11, 400]


@pytest.mark.parametrize("value", [0, 0.5, -2, 1e-9])
def test_a_number_is_constant(value: float) -> None:
    schedule = build_schedule(value, "w")
    assert [schedule(at) for at in POINTS] == [value] * len(POINTS)
    schedule = build_schedule({"kind": "constant", "value": value}, "w")
    assert [schedule(at) for at in POINTS] == [value] * len(POINTS)


def test_linear_is_a_line_between_its_ends() -> None:
    spec = {"kind": "linear", "start": 3.0, "end": 1.0, "begin": 2, "until": 10}
    schedule = build_schedule(spec, "w")
    for at in POINTS:
        if at <= 2:
            assert schedule(at) == 3.0
        elif at >= 10:
            assert schedule(at) == 1.0
        else:
            assert schedule(at) == pytest.approx(3.5 - at / 4, abs=1e-12)


def test_cosine_is_half_a_wave_between_its_ends() -> None:
    spec = {"kind": "cosine", "start": 0.1, "end": 0.7, "until": 10}
    schedule = build_schedule(spec, "w")
    for at in POINTS:
        if at <= 0:
            assert schedule(at) == 0.1
        elif at >= 10:
            assert schedule(at) == 0.7
        else:
            assert schedule(at) == pytest.approx(0.4 - 0.3 * math.cos(math.pi * at / 10), abs=1e-12)


def test_step_takes_each_value_from_its_boundary_on() -> None:
    spec = {"kind": "step", "values": [[4, 0.5], [0, 1.0], [10, 0]]}  # in any order
    schedule = build_schedule(spec, "w")
    assert [schedule(at) for at in (-3, 0, 3.75, 4, 9.99, 10, 400)] == [1, 1, 1, 0.5, 0.5, 0, 0]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_range_of_no_length_is_a_jump(kind: str) -> None:
    spec = {"kind": kind, "start": 0.25, "end": 0.75, "begin": 4, "until": 4}
    schedule = build_schedule(spec, "w")
    assert [schedule(at) for at in (0, 3.75, 4, 5)] == [0.25, 0.25, 0.75, 0.75]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("0.5", "a finite number or a mapping"),
        (True, "a finite number or a mapping"),
        (None, "a finite number or a mapping"),
        ([1, 2], "a finite number or a mapping"),
        (math.nan, "a finite number or a mapping"),
        ({}, "constant, linear, cosine, step"),
        ({"kind": ["linear"]}, "a finite number or a mapping"),
        ({"kind": "linaer"}, "did you mean 'linear'"),
        ({"kind": "linear", "start": 0, "end": 1}, "'until'"),
        ({"kind": "linear", "start": 0, "end": 1, "untl": 3, "until": 3}, "'untl'"),
        ({"kind": "linear", "start": "0", "end": 1, "until": 3}, "start is a finite number"),
        ({"kind": "cosine", "start": 0, "end": math.inf, "until": 3}, "end is a finite number"),
        ({"kind": "cosine", "start": 0, "end": 1, "begin": 5, "until": 3}, "until lies before"),
        ({"kind": "linear", "start": 0, "end": 1, "until": -1}, "until lies before begin"),
        ({"kind": "step"}, "'values'"),
        ({"kind": "step", "values": []}, "list of [boundary, value]"),
        ({"kind": "step", "values": 3}, "list of [boundary, value]"),
        ({"kind": "step", "values": [[0, 1, 2]]}, "list of [boundary, value]"),
        ({"kind": "step", "values": [0, 1]}, "list of [boundary, value]"),
        ({"kind": "step", "values": [[0, "1"]]}, "list of [boundary, value]"),
        ({"kind": "constant"}, "'value'"),
        ({"kind": "constant", "value": False}, "value is a finite number"),
        ({"kind": "constant", "value": 1, 3: 4}, "'3'"),
    ],
)
def test_a_wrong_form_names_the_key_and_what_is_wrong(spec: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        build_schedule(spec, "callbacks.weights.aux")
    assert str(error.value).startswith("callbacks.weights.aux: ")
    assert words in str(error.value)
