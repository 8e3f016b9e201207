"""Limits per minute, on a clock that only sleeping moves."""

from __future__ import annotations

import pytest

from recbole_ext.features.pace import Pace
from recbole_ext.types import UserError


def starts(pace, clock, tokens):
    found = []
    for n in tokens:
        pace.wait(n)
        found.append(clock.now)
    return found


@pytest.mark.parametrize(("limit", "tokens"), [((20, None), [1] * 50), ((None, 200), [10] * 50)])
def test_no_minute_has_more_than_allowed(limit, tokens, clock):
    times = starts(Pace(*limit, clock=clock, sleep=clock.sleep), clock, tokens)
    for begin in times:  # 20 requests, or 200 tokens, in any minute
        assert sum(begin <= t < begin + 60 - 1e-6 for t in times) <= 20
    assert times[-1] - times[0] == pytest.approx(49 * 3)  # and no less: nothing waits for nothing


def test_both_limits_hold_and_a_large_request_makes_the_next_wait(clock):
    pace = Pace(60, 600, clock=clock, sleep=clock.sleep)  # a second a request, .1 a token
    times = starts(pace, clock, [1, 1, 50, 1])
    assert [b - a for a, b in zip(times, times[1:], strict=False)] == pytest.approx([1, 1, 5])


def test_without_limits_nobody_waits(clock):
    starts(Pace(clock=clock, sleep=clock.sleep), clock, [1e9] * 5)
    assert clock.slept == []


def test_time_that_passes_otherwise_counts(clock):
    pace = Pace(6, clock=clock, sleep=clock.sleep)
    pace.wait(1)
    clock.now += 7
    pace.wait(1)
    assert clock.slept == pytest.approx([3])


def test_a_hold_is_for_everybody_and_the_longest_counts(clock):
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.hold(5)
    pace.hold(2)
    pace.wait(1)
    assert clock.slept == [5]


def test_a_rest_is_for_one_alone(clock):
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.rest(5)
    assert clock.slept == [5]
    clock.now -= 5  # for another, who did not sleep
    pace.wait(1)
    assert clock.slept == [5]


def test_who_slept_looks_again():
    """While one sleeps, another is told to hold: both obey."""
    now = [0.0]
    pace = Pace(clock=lambda: now[0], sleep=lambda s: None)
    pace.hold(5)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds
        if len(slept) == 1:
            pace.hold(7)

    pace._sleep = sleep
    pace.wait(1)
    assert slept == [5, 7]


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_is_above_zero(limit):
    with pytest.raises(UserError, match="tokens_per_minute takes a number above 0"):
        Pace(None, limit)
