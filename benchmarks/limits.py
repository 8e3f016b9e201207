"""What one machine can do: products at the widths of the models, and a pass over wide scores.

OMP_NUM_THREADS=1 python -m benchmarks.limits
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.side_by_side import MIB, machine

ROUNDS = 9
SHAPES = ((2048, 2048, 2048), (131_072, 64, 64), (131_072, 64, 256))
"""Products [a, b] x [b, c]: the best case, and those of a block of width 64."""


def seconds(work: Callable[[], Any]) -> float:
    """Return the median time of some calls."""
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def main() -> None:
    """Print a table."""
    import torch

    from recbole_ext.modules.top import top_items

    print("| work | milliseconds | |\n|---|---|---|")
    for a, b, c in SHAPES:
        left, right = torch.randn(a, b), torch.randn(b, c)
        spent = seconds(lambda left=left, right=right: left @ right)
        rate = 2 * a * b * c / spent / 1e9
        print(f"| [{a}, {b}] x [{b}, {c}] | {spent * 1e3:.1f} | {rate:.0f} x 10^9 operations/s |")
    scores = torch.randn(512, 200_000)  # [B, N]
    size = scores.numel() * scores.element_size() / MIB
    for name, work in (
        ("largest of each row", lambda: scores.amax(1)),
        ("sum of each row", lambda: scores.sum(1)),
        ("the first 20 (`top_items`)", lambda: top_items(scores, 20)),
        ("`torch.topk` of 20", lambda: scores.topk(20)),
    ):
        print(f"| {name}, {size:.0f} MiB of scores | {seconds(work) * 1e3:.1f} | |")
    print(f"\n_{machine()}_")


if __name__ == "__main__":
    main()
