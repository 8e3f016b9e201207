"""Group 3: a batch can be learned by heart, wrong labels teach nothing, each modality counts."""

from __future__ import annotations

import copy
from itertools import repeat
from typing import Any

import numpy as np
import torch
from recbole.utils import ModelType, init_seed

from recbole_ext.compare import charts
from recbole_ext.data.causal import N_SCORED
from recbole_ext.diagnose.baselines import popularity
from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.evaluation import margin
from recbole_ext.diagnose.modalities import tables_of, zeroed
from recbole_ext.diagnose.subject import Subject, loss_of, train

TITLE = "Learning"
LEARNING_RATE = 0.01
"""Of the checks that train, whatever the run had."""
BATCH = 64
UNUSED = 0.01
"""Share of the metric that a modality is to be worth."""
_USELESS = (
    "Leave the part out, or find out why it does not count (scale, gate, coverage), unless it "
    "works through a graph or a loss alone: scores are as good without it."
)


def check(subject: Subject, section: Section) -> None:
    """Train a fresh model on one batch, another on wrong labels; take tables from the run's."""
    subject.trainable()
    _overfits(subject, section)
    _learns_nothing_from_chance(subject, section)
    _needs_its_tables(subject, section)


def _overfits(subject: Subject, section: Section) -> None:
    (batch,) = subject.some_batches(1)
    model = subject.fresh()
    losses = train(model, repeat(batch[:BATCH]), subject.steps, LEARNING_RATE)
    left = float(np.mean(losses[-5:])) / losses[0]
    section.at_most(
        f"loss of one batch after {len(losses)} steps, as a share of the first",
        left,
        0.8,
        0.97,
        "Look for a loss that does not reach the weights (detach, a frozen part, logits through a "
        "sigmoid twice): even one batch cannot be learned.",
    )
    points = [(float(step), loss) for step, loss in enumerate(losses)]
    title = "Loss of one batch that is learned by heart"
    section.figures.append(charts.lines(title, "step", "loss", {"loss": [points]}, ["loss"]))


def with_wrong_targets(subject: Subject, batch: Any, generator: torch.Generator) -> Any:
    """Return a training batch whose targets are those of other rows.

    Negatives go with their positives: beside others they would tell what their user did take. Of a
    click among non-clicks of its impression the click becomes any one of them.
    """
    found = batch[:]
    order = torch.randperm(len(batch), generator=generator)  # [B]
    negative = subject.config["NEG_PREFIX"] + subject.iid
    if subject.label in batch and negative in batch and batch[negative].dim() == 2:
        shown = torch.cat([batch[subject.iid].unsqueeze(1), batch[negative]], 1)  # [B, 1 + K]
        places = torch.rand(shown.shape, generator=generator).argsort(1).to(shown.device)
        shown = shown.gather(1, places)  # [B, 1 + K]
        found[subject.iid], found[negative] = shown[:, 0], shown[:, 1:]
        return found
    for field in [subject.label] if subject.label in batch else [subject.iid, negative]:
        if field in batch:
            found[field] = batch[field][order]
    return found


def _reads_targets(subject: Subject, model: Any) -> bool:
    """Return whether wrong targets change the loss, and all of it comes from them.

    Some models take their targets, or all but the last, out of histories.
    """
    (batch,) = subject.some_batches(1)
    wrong, losses = with_wrong_targets(subject, batch, torch.Generator().manual_seed(0)), []
    for one in (batch, wrong):
        init_seed(subject.config["seed"], True)
        losses.append(loss_of(copy.deepcopy(model).train(), one).item())
    return N_SCORED not in batch and losses[0] != losses[1]


def _learns_nothing_from_chance(subject: Subject, section: Section) -> None:
    """Compare a model of wrong labels with chance: with popularity, which ranked items keep."""
    own = subject.own
    model = subject.fresh()
    if not _reads_targets(subject, model):
        section.skip("training on shuffled labels", "Its loss takes targets from histories.")
        return
    generator = torch.Generator().manual_seed(0)
    wrong = (with_wrong_targets(subject, batch, generator) for batch in subject.batches())
    train(model, wrong, subject.steps, LEARNING_RATE)
    found = subject.evaluate(model)
    is_auc = subject.has_labels and own.is_binary
    chance = 0.5 if is_auc else subject.evaluate(popularity(subject)).value
    most = max(1.5 * margin(own, found), 0.05 if is_auc else 0.0)
    excess = found.value - chance
    # a graph or a memory knows the right targets: where items are ranked it is a warning at most
    fails = is_auc and excess > 0.5 * (own.value - chance)
    severity = OK if excess <= most else FAIL if fails else WARN
    section.flag(
        f"{own.name} above chance ({chance:.4f}) when trained on shuffled labels",
        excess,
        f"<= {most:.4g}",
        severity,
        "Look for the target in what predict reads (see the leakage probes); in a model of stored "
        "features, a graph or a memory, what is above chance is these, and not training.",
    )


def _needs_its_tables(subject: Subject, section: Section) -> None:
    own, model = subject.own, subject.trained()
    lost = {}
    few = UNUSED * abs(own.value)
    for name, table in tables_of(model).items():
        with zeroed(model, table):
            lost[f"{name} zeroed"] = own.value - subject.evaluate(model).value
    if not lost:
        section.skip("modality zeroed", f"{subject.config['model']} has no table of ids.")
    for name, loss in lost.items():
        severity, wanted = OK if abs(loss) > few else WARN, f"more than {few:.4g}"
        section.flag(f"{own.name} lost with {name}", loss, wanted, severity, _USELESS)
    if subject.config["MODEL_TYPE"] == ModelType.CONTEXT:
        _needs_its_fields(subject, section, few)


def _needs_its_fields(subject: Subject, section: Section, few: float) -> None:
    own, useless = subject.own, []
    fields = [name for name in subject.parts["test"].fields() if name in subject.probe]
    for name in fields:
        if name != subject.label:
            loss = own.value - subject.evaluate(WithoutField(subject.model, name)).value
            section.known(f"{own.name} lost with field {name} zeroed", loss)
            useless += [name] if abs(loss) <= few else []
    named, severity = ", ".join(useless) or "none", WARN if useless else OK
    name = f"fields without which {own.name} changes by {few:.4g} or less"
    section.flag(name, named, "none", severity, _USELESS)


class WithoutField(torch.nn.Module):
    """A model that does not see one field of its rows."""

    def __init__(self, model: Any, field: str) -> None:
        super().__init__()
        self.model, self.field = model, field

    def predict(self, interaction: Any) -> torch.Tensor:
        """Return the model's scores of rows whose field is zero, [B]."""
        kept = interaction[self.field]
        interaction[self.field] = torch.zeros_like(kept)
        try:
            return self.model.predict(interaction)
        finally:
            interaction[self.field] = kept

    def full_sort_predict(self, interaction: Any) -> torch.Tensor:
        """Let the evaluation score pairs, as RecBole does where there is no such method."""
        raise NotImplementedError
