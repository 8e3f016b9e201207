from __future__ import annotations

import math

import pytest

from recbole_ext.callbacks.plateau import Plateau
from recbole_ext.types import UserError


def naive(values: list[float], patience: int, delta: float, sign: int) -> list[bool]:
    """Whether each of the last ``patience`` values gains nothing over the best before it."""
    gains = []
    for at, value in enumerate(values):
        best = max((sign * v for v in values[:at] if gains[values.index(v)]), default=-math.inf)
        gains.append(sign * value > best + delta)
    return [
        at + 1 > patience and not any(gains[at + 1 - patience : at + 1])
        for at in range(len(values))
    ]


RISING = [0.1, 0.2, 0.15, 0.21, 0.3, 0.29, 0.31, 0.28, 0.27, 0.26]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("delta", [0.0, 0.05])
@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_a_plateau_is_so_many_values_without_a_gain(
    patience: int, delta: float, mode: str, sign: int
) -> None:
    values = [sign * value for value in RISING]
    plateau = Plateau("m", patience, delta, mode)  # type: ignore[arg-type]
    found = [plateau.update({"m": value}) for value in values]
    assert found == naive(values, patience, delta, sign)
    assert any(found)


def test_the_same_value_again_is_no_gain() -> None:
    plateau = Plateau("m", patience=2)
    assert [plateau.update({"m": 0.5}) for _ in range(3)] == [False, False, True]


def test_what_is_no_number_is_no_gain() -> None:
    plateau = Plateau("m", patience=2)
    found = [plateau.update({"m": value}) for value in (math.nan, 0.1, math.nan, math.nan)]
    assert found == [False, False, False, True]
    assert plateau.best == 0.1


def test_a_restart_forgets() -> None:
    plateau = Plateau("m", patience=1)
    plateau.update({"m": 0.9})
    plateau.restart()
    assert not plateau.update({"m": 0.1})


def test_upper_and_lower_case_are_one() -> None:
    assert not Plateau("NDCG@10").update({"ndcg@10": 0.5})


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Here: .* no metric 'ncdg@10'; did you mean 'ndcg@10'"):
        Plateau("ncdg@10", where="Here").update({"ndcg@10": 0.5, "recall@10": 0.1})
    with pytest.raises(UserError, match="it has none"):
        Plateau("m").update({})
