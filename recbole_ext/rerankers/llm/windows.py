"""More candidates than a prompt takes: a window slides from the last to the first.

As RankGPT (Sun et al., EMNLP 2023): the window is ranked, then moves up by a step, so that the best
of it meet the better ones above. One pass puts the best ``size - step`` where they belong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Places = Sequence[int]
"""Places of candidates in their row."""


def slide(
    lengths: Sequence[int],
    size: int,
    step: int,
    score: Callable[[list[tuple[int, Places]]], list[list[float]]],
) -> list[list[int]]:
    """Return the places of each row's candidates, the best first.

    Args:
        lengths: Candidates of each row, which stand the best of stage one first.
        size: Candidates of a window.
        step: By how many a window moves up.
        score: Windows, each of a row and some of its places, -> a score for each place.
    """
    orders = [list(range(n)) for n in lengths]
    begins = [max(n - size, 0) for n in lengths]
    left = list(range(len(lengths)))
    while left:
        windows: list[tuple[int, Places]] = [
            (row, orders[row][begins[row] : begins[row] + size]) for row in left
        ]
        for (row, places), scores in zip(windows, score(windows), strict=True):
            ranked = sorted(range(len(places)), key=lambda i, s=scores: -s[i])  # type: ignore[misc]
            orders[row][begins[row] : begins[row] + size] = [places[i] for i in ranked]
        left = [row for row in left if begins[row] > 0]
        for row in left:
            begins[row] = max(begins[row] - step, 0)
    return orders
