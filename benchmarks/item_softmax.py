"""The softmax over a large catalogue: loss and gradients of one batch, three ways.

Ours, in chunks; ``F.cross_entropy`` of all logits, as in RecBole's models; ours over 1000 sampled
items. 2048 rows, 200,000 items, width 64.

    python -m benchmarks.item_softmax
"""

from __future__ import annotations

import math
from functools import partial, update_wrapper
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side


def chunks(clock: Clock, options: dict[str, int]) -> None:
    """Some rows at a time."""
    from recbole_ext.modules.item_softmax import chunked_cross_entropy

    _measure(clock, options, chunked_cross_entropy)


def all_logits(clock: Clock, options: dict[str, int]) -> None:
    """All logits at once."""
    import torch.nn.functional as F

    _measure(
        clock, options, lambda states, weight, targets: F.cross_entropy(states @ weight.T, targets)
    )


def sampled(clock: Clock, options: dict[str, int]) -> None:
    """A sample of the items."""
    import torch

    from recbole_ext.modules.item_softmax import ItemProposal, sampled_cross_entropy

    n = 1000
    proposal = ItemProposal(torch.ones(options["items"]))

    def loss(states: Any, weight: Any, targets: Any) -> Any:
        items, log_q = proposal(n)
        return sampled_cross_entropy(states, weight, targets, items, log_q + math.log(n))

    _measure(clock, options, loss)


def _measure(clock: Clock, options: dict[str, int], loss: Any) -> None:
    import torch

    torch.manual_seed(0)
    states = torch.randn(options["rows"], 64, requires_grad=True)
    weight = (0.1 * torch.randn(options["items"], 64)).requires_grad_()
    targets = torch.randint(1, options["items"], (options["rows"],))
    loss(states[:8], weight, targets[:8]).backward()  # what is done once is not measured
    with clock:
        found = loss(states, weight, targets)
        found.backward()
    clock.notes = {"loss": round(found.item(), 4)}


def main() -> None:
    """Run the comparison."""
    found = arguments(__doc__ or "", rows=2048, items=200_000)
    options = {"rows": found.rows, "items": found.items}
    ways = {
        name: update_wrapper(partial(way, options=options), way)
        for name, way in {
            "ours: chunks": chunks,
            "F.cross_entropy": all_logits,
            "ours: 1000 sampled": sampled,
        }.items()
    }
    title = f"Softmax over {found.items} items, {found.rows} rows, forward and backward"
    print(side_by_side(title, ways, found.rounds, None))


if __name__ == "__main__":
    main()
