"""Group 8: how large gradients and steps are, what never moves, and whether gates are open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.subject import Subject, loss_of
from recbole_ext.modules.fusion import LateFusion

TITLE = "Gradients"
BATCHES = 10
SHOWN = 5
"""Names of weights that a sentence has."""


def check(subject: Subject, section: Section) -> None:
    """Train a copy of the run's model on some batches, by the run's learning rate."""
    subject.trainable()
    model, batches = subject.trained(), subject.some_batches(BATCHES)
    with gate_shares(model) as gates:
        norms, ratios, moved = _steps(model, batches, float(subject.config["learning_rate"]))
    worst = max(norms, key=lambda norm: norm if math.isfinite(norm) else math.inf)
    section.at_most(
        "largest gradient norm",
        worst,
        100,
        1e4,
        "Set clip_grad_norm or lower learning_rate: a gradient is that large, or no number.",
    )
    section.at_least(
        "smallest gradient norm",
        min(norms),
        1e-6,
        1e-10,
        "Look for saturated scores (see score geometry) or a frozen part: nothing is left to "
        "learn from.",
    )
    section.flag(
        "update ratio (step over weight), median of the weights",
        ratio := sorted(ratios)[len(ratios) // 2] if ratios else 0.0,
        "1e-05 to 0.1",
        OK if 1e-5 <= ratio <= 0.1 else WARN,
        "Change learning_rate: a step is to be about a thousandth of the weights.",
    )
    still = [name for name, has_moved in moved.items() if not has_moved]
    named = ", ".join(still[:SHOWN]) + (" ..." if len(still) > SHOWN else "")
    section.flag(
        "weights that never get a gradient",
        f"{len(still)} of {len(moved)}" + (f": {named}" if still else ""),
        "0",
        OK if not still else FAIL if len(still) == len(moved) else WARN,
        "Connect these weights to the loss, or freeze or delete them: they stay as they were drawn "
        "(the biases of attention keys may, for they change nothing).",
    )
    unseen = float((subject.seen[1:] == 0).float().mean())
    section.at_most(
        "share of items without a training interaction",
        unseen,
        0.2,
        0.9,
        "Use item features, or filter such items (item_inter_num_interval): their ID embedding "
        "stays as it was drawn.",
    )
    _gates(section, gates, subject.config["model"])


def _steps(
    model: Any, batches: Sequence[Any], learning_rate: float
) -> tuple[list[float], list[float], dict[str, bool]]:
    """Train; return the norm of each gradient, the ratio of each weight, and which had one."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    moved, norms = dict.fromkeys(weights, False), []
    optimizer = torch.optim.Adam(weights.values(), lr=learning_rate)
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        grads = {name: w.grad for name, w in weights.items() if w.grad is not None}
        norms.append(math.sqrt(sum(grad.double().pow(2).sum().item() for grad in grads.values())))
        for name, grad in grads.items():
            moved[name] = moved[name] or bool(grad.any())
        optimizer.step()
    steps = max(len(batches), 1)
    ratios = [
        ((weights[name] - old).norm() / old.norm().clamp_min(1e-12)).item() / steps
        for name, old in before.items()
        if moved[name] and old.dim() > 1 and old.any()  # a bias begins at zero, and moves far
    ]
    return norms, ratios, moved


@contextmanager
def gate_shares(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Listen to a model's gates: name -> the shares that each batch had, [B, M].

    A gate is the ``mix`` of a late fusion, or a module named ``gate``: of two shares where it gives
    one number for each row.
    """
    found: dict[str, list[Tensor]] = {}
    handles = []

    def listen(name: str, module: nn.Module, is_softmax: bool) -> None:
        def keep(module: nn.Module, _: Any, output: Tensor) -> None:
            value = output.detach().float()
            if is_softmax:  # of a row's modalities
                shares = value.squeeze(-1).softmax(-1)  # [B, M]
            else:
                share = value.sigmoid() if isinstance(module, nn.Linear) else value
                share = share.reshape(-1, 1)  # [B, 1]
                shares = torch.cat([share, 1 - share], 1)  # [B, 2]
            found.setdefault(name, []).append(shares)

        handles.append(module.register_forward_hook(keep))

    for name, module in model.named_modules():
        if isinstance(module, LateFusion) and module.how != "concat":
            listen(f"{name}.mix", module.mix, True)
        elif name.rpartition(".")[2] == "gate":
            listen(name, module, False)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _gates(section: Section, gates: dict[str, list[Tensor]], model: str) -> None:
    if not gates:
        section.skip("gates", f"{model} has no gate that its loss goes through.")
    for name, parts in gates.items():
        shares = torch.cat(parts).double()  # [B, M]
        mean = shares.mean(0)  # [M]
        entropy = -(shares.clamp_min(1e-12).log() * shares).sum(1).mean().item()
        section.known(f"{name}: mean shares", ", ".join(f"{x:.3f}" for x in mean.tolist()))
        section.at_least(
            f"{name}: entropy, as a share of the largest",
            entropy / math.log(shares.shape[1]),
            0.05,
            -math.inf,
            "Start the gate in the middle, normalise what it weighs, or drop modalities in "
            "training: one of them has all the weight.",
        )
