"""The linear recurrence of LRURec, forward and backward, four ways.

Ours on a CPU: L steps in place. Ours elsewhere: a scan in log2 L steps. Chunks of 16 positions, as
a product with the powers of the decay, and what they carry over step by step. The same product over
the whole length. Batches of 128 histories, 128 complex numbers each, as with ``hidden_size`` 64.

    OMP_NUM_THREADS=1 python -m benchmarks.linear_recurrence --length=200
"""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side

STATE_SIZE = 128
TIMES = 3


def loop(clock: Clock, options: dict[str, int]) -> None:
    """Step by step, in place."""
    from recbole_ext.modules.linear_recurrence import linear_recurrence

    _measure(clock, options, linear_recurrence)


def log2_steps(clock: Clock, options: dict[str, int]) -> None:
    """A parallel scan."""
    from recbole_ext.modules.linear_recurrence import scan

    _measure(clock, options, scan)


def chunks(clock: Clock, options: dict[str, int]) -> None:
    """Products within chunks, steps between them."""
    _measure(clock, options, partial(_by_products, width=16))


def whole(clock: Clock, options: dict[str, int]) -> None:
    """One product of [L, L] for each number of the state."""
    _measure(clock, options, partial(_by_products, width=options["length"]))


def _by_products(inputs: Any, decay: Any, width: int) -> Any:
    """Return the states [B, L, H, 2] for inputs [B, L, H, 2] and a decay [H, 2]."""
    import torch

    u, factor = torch.view_as_complex(inputs), torch.view_as_complex(decay)  # [B, L, H], [H]
    n_rows, length, n = u.shape
    u = torch.nn.functional.pad(u, (0, 0, 0, -length % width))
    u = u.view(n_rows, -1, width, n).permute(3, 2, 0, 1)  # [H, width, B, chunks]
    power = torch.arange(width)[:, None] - torch.arange(width)  # [width, width]
    kernel = torch.where(power >= 0, factor[:, None, None] ** power.clamp(min=0), 0)  # [H, ...]
    within = (kernel @ u.flatten(2)).view_as(u)  # [H, width, B, chunks]
    carried = factor[:, None] ** torch.arange(1, width + 1)  # [H, width]
    parts: list[Any] = []
    for part in within.unbind(-1):  # [H, width, B]
        if parts:
            part = part + carried[..., None] * parts[-1][:, -1:]  # [H, width, B]
        parts.append(part)
    states = torch.cat(parts, 1)[:, :length].permute(2, 1, 0)  # [B, L, H]
    return torch.view_as_real(states)


def _measure(clock: Clock, options: dict[str, int], run: Any) -> None:
    import torch

    from recbole_ext.modules.linear_recurrence import decay_of, ring_decay

    torch.manual_seed(0)
    shape = options["batch"], options["length"], STATE_SIZE, 2
    inputs, d_states = torch.randn(shape, requires_grad=True), torch.randn(shape)
    decay = decay_of(*ring_decay(STATE_SIZE)).requires_grad_()
    run(inputs, decay).backward(d_states)  # what is done once is not measured
    clock.share = TIMES
    with clock:
        for _ in range(TIMES):
            states = run(inputs, decay)
            states.backward(d_states)
    clock.notes = {"norm": round(states.norm().item(), 1)}


def main() -> None:
    """Run the comparison."""
    found = arguments(__doc__ or "", batch=128, length=200)
    options = {"batch": found.batch, "length": found.length}
    ways = {
        name: update_wrapper(partial(way, options=options), way)
        for name, way in {
            "ours: loop": loop,
            "ours: scan": log2_steps,
            "chunks of 16": chunks,
            "one product": whole,
        }.items()
    }
    title = f"Linear recurrence, {found.batch} x {found.length}, forward and backward"
    print(side_by_side(title, ways, found.rounds, None))


if __name__ == "__main__":
    main()
