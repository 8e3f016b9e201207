"""JointRec: the contract, its scores and losses by their definitions, and its four phases."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.compare.ablation import ablation_of
from recbole_ext.compare.overrides import Overrides
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.models.multimodal.jointrec import LOSSES, ScoreMix, rank_fusion
from recbole_ext.modules.sampling import other_items
from recbole_ext.quick_start import run
from recbole_ext.registry import get_model
from recbole_ext.trainer.batch_hooks import BatchHooks
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.types import UserError
from tests.models.feature_help import item_feature

SMALL = {"hidden_size": 8, "inner_size": 16, "joint_negatives": 7}


class Joint(ModelContract):
    model = "JointRec"

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Config:
        feature = item_feature(folder, "title")
        return super().make_config(data_path, folder, **{"text_feature": feature, **SMALL, **more})


class TestJointRec(Joint):
    pass


class TestJointRecWithABank(Joint):
    settings = {"memory_bank_size": 16, "sasrec_loss": "bpr", "hidden_dropout_prob": 0.1}

    def test_losses_are_named_finite_scalars_that_sum_up(self, net, batch):
        # in training a batch is in the bank when it comes the second time
        super().test_losses_are_named_finite_scalars_that_sum_up(net.eval(), batch)


class TestJointRecOfRanks(Joint):
    settings = {"combine": "rank_fusion", "retriever": "MultimodalPreferenceRetriever"}


@pytest.fixture
def made(tiny_data_path, tmp_path):
    """Return a model and its loaders for settings."""

    def make(**settings: Any) -> tuple[Any, Any]:
        contract = Joint()
        config = contract.make_config(tiny_data_path, tmp_path, **settings)
        init_seed(3, True)
        loaders = create_loaders(config, create_dataset(config))
        return contract.make_model(config, loaders[0].dataset), loaders

    return make


@torch.no_grad()
def test_the_score_is_the_sum_of_the_parts(made):
    net, (_, _, test) = made()
    for parameter in net.mix.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(1))
    batch = next(iter(test))[0]
    scores = net.eval().full_sort_predict(batch).double().numpy()
    h, items = net.encode(batch).double().numpy(), net.item_weight.double().numpy()
    theirs = net.retriever.full_sort_predict(batch).double().numpy()
    user = net.mix.of_user.weight.double().numpy(), net.mix.of_user.bias.double().numpy()
    gate = h @ user[0].T + user[1] + items @ net.mix.of_item.weight.double().numpy()[0]  # [B, N]
    one, two = np.exp(net.mix.log_scale.double().numpy())
    wanted = one * (h @ items.T) + two * theirs / (1 + np.exp(-gate))
    np.testing.assert_allclose(scores[:, 1:], wanted[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_gate_that_has_not_learned_is_nearly_closed():
    mix, user, items = ScoreMix(4), torch.randn(2, 4), torch.randn(3, 4)
    mixed = mix(torch.zeros(2, 3), torch.ones(2, 3), user, items)
    assert mixed.flatten().tolist() == pytest.approx([1 / (1 + np.exp(2))] * 6, abs=1e-6)


def test_ranks_are_fused_by_their_reciprocals():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 6, (4, 9)), rng.integers(0, 6, (4, 9))  # with ties
    found = rank_fusion(torch.tensor(one), torch.tensor(two), 10.0)
    for row in range(4):
        for i in range(9):
            ranks = [1 + (scores[row] > scores[row, i]).sum() for scores in (one, two)]
            wanted = sum(1 / (10.0 + rank) for rank in ranks)
            assert float(found[row, i]) == pytest.approx(wanted, rel=1e-6)


def test_the_losses_of_a_part_that_does_not_train_are_zero(made):
    net, (train, _, _) = made(memory_bank_size=16)
    batch = next(iter(train))
    net.losses(batch)
    net.eval()  # the bank has the batch, and keeps it so
    net.bank.ids.zero_()  # of other items, which are negatives
    for frozen, zero in (("sasrec", {"sasrec"}), ("retriever", {"retrieval", "contrastive"})):
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        found = net.losses(batch)
        assert tuple(found) == LOSSES
        for name in ("sasrec", "retrieval", "contrastive", "joint"):
            assert bool(found[name].requires_grad) == (name not in zero), (frozen, name)
            assert (float(found[name]) == 0) == (name in zero), (frozen, name)


def test_candidates_are_the_same_and_begin_with_the_target(made):
    net, (train, _, _) = made()
    batch = next(iter(train))
    losses = net.eval().losses(batch)
    sets = net.score_sets
    assert sets["sasrec"].shape == sets["retriever"].shape == (len(batch), 8)
    target = batch[net.POS_ITEM_ID]
    wanted = net.encode(batch) @ net.item_weight.T
    own = wanted.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(sets["sasrec"][:, 0], own)
    theirs = net.retriever.scores(batch, target[:, None]).squeeze(1)
    torch.testing.assert_close(sets["retriever"][:, 0], theirs)
    gate = torch.sigmoid(torch.tensor(-2.0))
    mixed = sets["sasrec"] + gate * sets["retriever"]  # nothing has been learned
    torch.testing.assert_close(losses["joint"], -mixed.log_softmax(1)[:, 0].mean())


@pytest.mark.parametrize("frozen", ["", "sasrec", "retriever"])
@pytest.mark.parametrize(
    "more", [{}, {"softmax": "in_batch"}, {"retrieval_loss": "bpr", "n_negatives": 5}]
)
@pytest.mark.parametrize("bank", [0, 16])
def test_a_step_encodes_its_items_once(made, bank, more, frozen):
    net, (train, _, _) = made(memory_bank_size=bank, retriever_config=more)
    for parameter in getattr(net, frozen).parameters() if frozen else ():
        parameter.requires_grad_(False)
    encoders = {"items": net.retriever.content, "users": net.retriever.user_profile}
    calls = []
    for name, module in {**encoders, "histories": net.sasrec}.items():
        module.register_forward_hook(lambda *_, _of=name: calls.append(_of))
    batch = next(iter(train))
    torch.manual_seed(2)
    losses = net.losses(batch)
    keys = ["items"] if bank and frozen != "retriever" else []  # those of the slow copy
    assert sorted(calls) == sorted(["items", "users", "histories", *keys])
    theirs = net.retriever.scores(batch, drawn_candidates(net, batch))
    torch.testing.assert_close(net.score_sets["retriever"], theirs)
    if frozen != "retriever" and "n_negatives" not in more:  # of which nothing is drawn
        alone = net.retriever.losses(batch)["rec"]
        torch.testing.assert_close(losses["retrieval"], alone)


def drawn_candidates(net: Any, batch: Any) -> torch.Tensor:
    """Return the candidates [B, 1 + K] that seed 2 draws."""
    torch.manual_seed(2)
    target = batch[net.POS_ITEM_ID]
    negatives = other_items(target, net.n_negatives, net.n_items)
    return torch.cat([target[:, None], negatives], dim=1)


def test_the_bank_fills_with_keys_of_the_slow_encoder(made):
    net, (train, _, _) = made(memory_bank_size=1000, bank_decay=0.5)
    assert len(net.bank.keys) == net.n_items - 1  # no longer than the catalogue
    batches = [batch for batch, _ in zip(train, range(3), strict=False)]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for batch in batches:
        with torch.no_grad():
            keys = net.slow_content(batch[net.POS_ITEM_ID])
        before = int(net.bank.n_pushed)
        losses = net.losses(batch)
        assert float(losses["contrastive"]) == 0 if before == 0 else losses["contrastive"] > 0
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        size = len(net.bank.keys)
        place = (before + torch.arange(len(keys)))[-size:] % size
        torch.testing.assert_close(net.bank.keys[place], keys[-size:])
        assert torch.equal(net.bank.ids[place], batch[net.POS_ITEM_ID][-size:])
    fast = net.retriever.content(batches[0][net.POS_ITEM_ID])
    assert not torch.allclose(fast, net.slow_content(batches[0][net.POS_ITEM_ID]), atol=1e-3)
    pushed = int(net.bank.n_pushed)
    net.eval().losses(batches[0])
    assert int(net.bank.n_pushed) == pushed, "an evaluation leaves it alone"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"combine": "sum"}, "combine: 'sum' is none of learned, rank_fusion"),
        ({"retriever": "BPR"}, "retriever: 'BPR' is none of TextPreferenceRetriever, Multi"),
        ({"joint_negatives": 0}, "joint_negatives: 0 is not between 1 and"),
        ({"retriever_config": {"fuson": "late"}}, "'?fuson'?"),
        ({"retriever_config": {"retrieval_loss": "mse"}}, "retrieval_loss: 'mse' is none of"),
        ({"text_feature": None}, "text_feature: name the stored texts"),
    ],
)
def test_what_cannot_be_meant(wrong, sentence, tiny_data_path, tmp_path):
    config = Joint().make_config(tiny_data_path, tmp_path, **wrong)
    with pytest.raises(UserError, match=sentence):
        get_model("JointRec").check_settings(config, None)


# ---- phases

PHASES = [
    {"name": "pretrain_sasrec", "train": ["sasrec.*"], "losses": ["sasrec"], "epochs": 1},
    {
        "name": "pretrain_retriever",
        "train": ["retriever.*"],
        "losses": ["retrieval", "contrastive", "consistency", "diversity"],
        "epochs": 1,
    },
    {"name": "joint_finetune", "epochs": 1},
    {"name": "end_to_end", "losses": ["joint"], "epochs": 1},
]
CALLBACKS: list[Any] = [
    {"Alternate": {"phases": PHASES}},
    {
        "Distill": {
            "phase": "joint_finetune",
            "margin": -5.0,
            "pairs": [
                {"teacher": "sasrec", "student": "retriever", "weight": 0.5},
                {"teacher": "retriever", "student": "sasrec", "weight": 0.5},
            ],
        }
    },
    {
        "AdaptiveAlternate": {
            "phase": "joint_finetune",
            "min_steps": 1,
            "max_steps": 2,
            "parts": [
                {"name": "sasrec", "train": ["sasrec.*"], "losses": ["sasrec", "distill_sasrec"]},
                {
                    "name": "retriever",
                    "train": ["retriever.*"],
                    "losses": ["retrieval", "contrastive", "distill_retriever"],
                },
            ],
        }
    },
    {"LossCurriculum": {"weights": {"contrastive": {"kind": "step", "values": [[0, 0.2]]}}}},
    {"Freeze": {"rules": [{"pattern": "sasrec.item_embedding.*", "from_epoch": 3}]}},
]


@pytest.fixture
def settings(tiny_settings, tmp_path):
    feature = item_feature(tmp_path, "title")
    more = {"text_feature": feature, "memory_bank_size": 16, "epochs": 4, "topk": [5]}
    return {**tiny_settings, **SMALL, **more, "valid_metric": "NDCG@5", "callbacks": CALLBACKS}


def test_each_phase_moves_its_own_part(settings, tmp_path, monkeypatch):
    moved: list[tuple[str, set[str]]] = []
    step, before = BatchHooks._after_step, {}

    def look(trainer: BatchHooks, *arguments: Any) -> None:
        step(trainer, *arguments)
        now = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        parts = {n.split(".")[0] for n in before if not torch.equal(before[n], now[n])}
        if "sasrec.item_embedding.weight" in before:
            names = [n for n in before if not torch.equal(before[n], now[n])]
            parts |= {"items"} & {"items" for n in names if n == "sasrec.item_embedding.weight"}
            moved.append((trainer.state.phase, parts))
        before.update(now)

    monkeypatch.setattr(BatchHooks, "_after_step", look)
    run("JointRec", "tiny", config_dict={**settings, "output_dir": str(tmp_path / "run")})
    by_phase: dict[str, list[set[str]]] = {}
    for phase, parts in moved:
        by_phase.setdefault(phase, []).append(parts)
    assert list(by_phase) == [phase["name"] for phase in PHASES]
    assert all(parts == {"sasrec", "items"} for parts in by_phase["pretrain_sasrec"])
    assert all(parts == {"retriever"} for parts in by_phase["pretrain_retriever"])
    joint = by_phase["joint_finetune"]
    assert {"mix", "sasrec", "items"} in joint and {"mix", "retriever"} in joint, "in turns"
    assert not any({"sasrec", "retriever"} <= parts for parts in joint)
    assert all(parts == {"mix", "sasrec", "retriever"} for parts in by_phase["end_to_end"])


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_a_run_that_was_broken_off_in_a_phase_ends_as_the_whole_one(
    phase, settings, tmp_path, monkeypatch
):
    def run_in(name: str) -> None:
        run("JointRec", "tiny", config_dict={**settings, "output_dir": str(tmp_path / name)})

    run_in("whole")
    step = BatchHooks._after_step

    def kill(trainer: BatchHooks, *arguments: Any) -> None:
        step(trainer, *arguments)
        if trainer.state.epoch == phase and trainer.state.step % trainer.state.steps_per_epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(BatchHooks, "_after_step", kill)
    with pytest.raises(KeyboardInterrupt):
        run_in("broken")
    monkeypatch.setattr(BatchHooks, "_after_step", step)
    run(resume=tmp_path / "broken")
    whole, resumed = (read_checkpoint(tmp_path / n / "last.pt") for n in ("whole", "broken"))
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    records = [
        (tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("whole", "broken")
    ]
    assert len(records[0]) == len(records[1]) == 4


ENDS = (8, 20, 36, 48)
"""Epochs at which the phases of properties/ablation/JointRec.yaml end."""


def in_four_epochs(given: Any, key: str = "") -> Any:
    """Return settings of callbacks with phases of one epoch, and with what begins in them."""
    if isinstance(given, dict):
        return {name: in_four_epochs(value, name) for name, value in given.items()}
    if isinstance(given, list):
        return [in_four_epochs(value) for value in given]
    if key in ("begin", "from_epoch"):
        return sum(end <= given for end in ENDS)  # the phase that it falls in
    if key in ("until", "until_epoch"):
        return sum(start < given for start in (0, *ENDS[:-1]))  # the end of that phase
    return {"epochs": 1, "min_steps": 1, "max_steps": 2}.get(key, given)


def test_the_ablation_has_what_the_model_has(settings, tmp_path):
    """A loss or a part that is not there ends a run with a sentence."""
    found = ablation_of("JointRec", Overrides({}))
    names = [one.name for one in found.variants]
    assert names == [
        *("+ alternation", "+ curriculum", "+ bank", "+ distillation", "+ unfreezing"),
        *("+ uncertainty", "+ all"),
    ]
    phases = found.by_model["JointRec"]["callbacks"][0]["Alternate"]["phases"]
    assert tuple(accumulate(phase["epochs"] for phase in phases)) == ENDS
    for one in found.variants:
        given = {**settings, **found.by_model["JointRec"], **one.settings}
        callbacks, folder = in_four_epochs(given["callbacks"]), tmp_path / one.name
        run(
            "JointRec",
            "tiny",
            config_dict={**given, "callbacks": callbacks, "output_dir": str(folder)},
        )
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3], one.name
