"""Groups 3, 6 and 8: what is wrong with weights and training is seen, by planting it."""

from __future__ import annotations

import copy

import pytest
import torch
from diagnose.conftest import Scoring, checks_of, starting
from models.feature_help import item_feature

from recbole_ext.diagnose import embeddings, gradients, learning
from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.modalities import tables_of, zeroed
from recbole_ext.modules.fusion import LateFusion


class Deaf(Scoring):
    """Its loss does not reach its weights."""

    def calculate_loss(self, interaction):
        loss = self.model.calculate_loss(interaction)
        return loss.detach() + 0 * next(self.parameters()).sum()


def told(scores, interaction):
    """Scores with the answer in them."""
    return scores + 10 * interaction["label"]


# ---- learning


def test_a_loss_that_reaches_no_weight_fails(ranking):
    ranking.fresh = lambda: Deaf(copy.deepcopy(ranking.model), None)
    section = Section("s")
    learning._overfits(ranking, section)
    assert section.checks[0].severity == FAIL and "detach" in section.checks[0].advice


def test_a_score_that_knows_the_label_is_above_chance_after_wrong_labels(clicks):
    section = Section("s")
    learning._learns_nothing_from_chance(clicks, section)
    fresh = clicks.fresh
    clicks.fresh = lambda: Scoring(fresh(), told)
    learning._learns_nothing_from_chance(clicks, section)
    sound, leaking = section.checks
    assert sound.severity == OK and leaking.severity == FAIL
    assert leaking.value == pytest.approx(0.5)


def test_wrong_targets_stay_with_their_negatives(ranking):
    (batch,) = ranking.some_batches(1)
    batch["neg_item_id"] = batch["item_id"] + 100
    wrong = learning.with_wrong_targets(ranking, batch, torch.Generator().manual_seed(0))
    assert torch.equal(wrong["neg_item_id"], wrong["item_id"] + 100)
    assert not torch.equal(wrong["item_id"], batch["item_id"])
    assert torch.equal(wrong["item_id"].sort().values, batch["item_id"].sort().values)
    assert torch.equal(wrong["item_id_list"], batch["item_id_list"])


def test_a_loss_that_takes_targets_elsewhere_is_left_out(ranking):
    class FromHistory(Scoring):
        def calculate_loss(self, interaction):
            return self.model.item_embedding(interaction["item_id_list"]).square().mean()

    ranking.fresh = lambda: FromHistory(copy.deepcopy(ranking.model), None)
    section = Section("s")
    learning._learns_nothing_from_chance(ranking, section)
    assert section.checks[0].severity == "SKIP" and "histories" in section.checks[0].advice


def test_a_table_that_is_not_used_is_told(ranking):
    ranking.model.spare = torch.nn.Embedding(5, 4)
    section = Section("s")
    learning._needs_its_tables(ranking, section)
    found = {one.name: one for one in section.checks}
    lost = f"{ranking.own.name} lost with "
    assert found[f"{lost}spare zeroed"].severity == WARN and found[f"{lost}spare zeroed"].value == 0
    assert found[f"{lost}item_embedding zeroed"].severity == OK


def test_a_field_that_does_not_count_is_named(clicks):
    with torch.no_grad():  # times are scaled by one weight vector
        for name, weight in clicks.model.named_parameters():
            if "float" in name:
                weight.zero_()
    section = Section("s")
    learning._needs_its_tables(clicks, section)
    found = starting({one.name: one for one in section.checks}, "fields without which")
    assert found.severity == WARN and "timestamp" in found.value and "item_id" not in found.value


def test_a_table_is_what_it_was_afterwards(ranking):
    table = tables_of(ranking.model)["item_embedding"]
    before = table.weight.detach().clone()
    with zeroed(ranking.model, table):
        assert not table.weight.any()
    assert torch.equal(table.weight, before)


# ---- embeddings


def test_sound_tables_pass(ranking):
    found = checks_of(embeddings, ranking)
    assert {one.severity for one in found.values()} == {OK}


@pytest.mark.parametrize(
    ("spoil", "words", "severity"),
    [
        (lambda w: w[3].fill_(float("inf")), "share of rows with NaN or Inf", FAIL),
        (lambda w: w[:30].zero_(), "share of rows of zeros", FAIL),
        (lambda w: w[:20].copy_(w[20].expand(20, -1)), "share of rows that equal another", WARN),
        (lambda w: w.add_(5), "mean cosine of two rows", FAIL),
        (lambda w: w.copy_(w[:, :1] @ w[5:6]), "effective rank", FAIL),
        (lambda w: w.zero_(), "all rows are zero", WARN),
    ],
)
def test_each_defect_of_a_table_is_seen(spoil, words, severity, ranking):
    with torch.no_grad():
        spoil(ranking.model.item_embedding.weight)
    found = checks_of(embeddings, ranking)
    assert starting(found, f"item_embedding: {words}").severity == severity


def test_a_stored_feature_is_looked_at(ranking, tmp_path):
    ranking.config.resolved["text_feature"] = item_feature(tmp_path, "title", missing=(3,))
    found = checks_of(embeddings, ranking)
    assert starting(found, "feature title: length of a row").value == "1.000 +- 0.000"
    assert starting(found, "feature title: effective rank").severity == OK


# ---- gradients


def test_sound_gradients_pass(ranking):
    found = checks_of(gradients, ranking)
    names = ("largest gradient", "smallest gradient", "update ratio")
    assert [starting(found, name).severity for name in names] == [OK] * 3
    assert starting(found, "gates").severity == "SKIP"


def test_a_gradient_that_is_too_large_or_none_fails(ranking):
    calculate = ranking.model.calculate_loss
    ranking.model.calculate_loss = lambda batch: 1e6 * calculate(batch)
    ranking.trained = lambda: ranking.model
    found = checks_of(gradients, ranking)
    assert starting(found, "largest gradient norm").severity == FAIL
    ranking.model.calculate_loss = lambda batch: 0 * calculate(batch)
    found = checks_of(gradients, ranking)
    assert starting(found, "smallest gradient norm").severity == FAIL
    assert starting(found, "weights that never get a gradient").severity == FAIL


def test_a_weight_out_of_reach_is_named(ranking):
    ranking.model.spare = torch.nn.Linear(2, 2, bias=False)
    found = starting(checks_of(gradients, ranking), "weights that never get a gradient")
    assert found.severity == WARN and "spare.weight" in found.value


def test_a_closed_gate_is_told():
    fusion = LateFusion(4, [1, 1], "gate")
    tokens, masks = [torch.ones(3, 1, 4)] * 2, [torch.ones(3, 1, dtype=torch.bool)] * 2
    for scale, severity in ((0.0, OK), (50.0, WARN)):
        with torch.no_grad():
            fusion.mix.weight.copy_(scale * torch.tensor([[1.0], [-1.0]]).expand(2, 8))
        with gradients.gate_shares(torch.nn.ModuleDict({"fusion": fusion})) as gates:
            fusion(tokens, masks, torch.zeros(3, 4))
        section = Section("s")
        gradients._gates(section, gates, "a model")
        mean, entropy = section.checks
        assert entropy.severity == severity
        assert mean.value == ("0.500, 0.500" if severity == OK else "1.000, 0.000")
