"""Evaluation: which items are left out of a ranking, and that negatives are always the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.eval_loaders import FrozenNegativesLoader
from recbole_ext.trainer.hooked_trainer import build_trainer
from recbole_ext.types import UserError

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "embedding_size": 8}
Build = Callable[..., dict[str, Any]]


@pytest.fixture
def build(tiny_settings: dict[str, Any]) -> Build:
    """Gives config, dataset and loaders of a model on ``tiny``, leave one out in time order."""

    def make(model: str, mode: str = "full", **settings: Any) -> dict[str, Any]:
        base = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
        general = model != "SASRec"
        sizes = {k: v for k, v in SMALL.items() if (k == "embedding_size") == general}
        sizes = {} if model == "NeuMF" else sizes
        eval_args = {**LEAVE_ONE_OUT, "mode": mode}
        chosen = {**base, **sizes, "eval_args": eval_args, **settings}
        config = Config(model, "tiny", config_dict=chosen)
        dataset = create_dataset(config)
        train, valid, test = create_loaders(config, dataset)
        parts = {"train": train, "valid": valid, "test": test}
        return {"config": config, "dataset": dataset, **parts}

    return make


@pytest.fixture
def reference(tiny_data_path: Path) -> dict[str, list[str]]:
    """Items of each user in time order, from the file with plain Python."""
    events = defaultdict(list)
    lines = (tiny_data_path / "tiny" / "tiny.inter").read_text().splitlines()
    header = [column.split(":")[0] for column in lines[0].split("\t")]
    for line in lines[1:]:
        row = dict(zip(header, line.split("\t"), strict=True))
        events[row["user_id"]].append((float(row["timestamp"]), row["item_id"]))
    return {user: [item for _, item in sorted(rows)] for user, rows in events.items()}


def tokens(dataset: Any, field: str, ids: Any) -> list[str]:
    return [str(dataset.field2id_token[field][int(i)]) for i in ids]


def split(items: list[str], phase: str) -> tuple[str, set[str]]:
    """Return a user's target and what is to be masked: all that came before but the target."""
    cut = len(items) - (1 if phase == "test" else 2)
    return items[cut], set(items[:cut]) - {items[cut]}


def masked_items(parts: dict[str, Any], phase: str) -> dict[str, tuple[list[str], set[str]]]:
    """Return user -> (targets, masked items) as tokens, over all batches of a loader."""
    dataset, found = parts["dataset"], {}
    for interaction, history, positive_u, positive_i in parts[phase]:
        users = tokens(dataset, "user_id", interaction["user_id"])
        masks: list[set[str]] = [set() for _ in users]
        if history is not None:
            for row, item in zip(*(part.tolist() for part in history), strict=True):
                masks[row].add(tokens(dataset, "item_id", [item])[0])
        targets = defaultdict(list)
        for row, item in zip(positive_u.tolist(), positive_i.tolist(), strict=True):
            targets[row].append(tokens(dataset, "item_id", [item])[0])
        for row, user in enumerate(users):
            assert user not in found
            found[user] = (targets[row], masks[row])
    return found


@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_masked_history_is_all_that_came_before_for_every_family(
    model: str, phase: str, build: Build, reference: dict[str, list[str]]
) -> None:
    parts = build(model, mask_history=True)
    found = masked_items(parts, phase)
    assert found.keys() == reference.keys()
    for user, items in reference.items():
        target, history = split(items, phase)
        assert found[user] == ([target], history), user
    longest = parts["config"]["MAX_ITEM_LIST_LENGTH"]
    assert sum(len(set(items)) > longest + 2 for items in reference.values()) >= 3
    repeats = [items for items in reference.values() if items[-1] in items[:-1]]
    assert repeats, "the tiny data have targets that the user had before"
    valid_at_test = [items for items in reference.values() if items[-2] != items[-1]]
    if phase == "test":
        assert all(items[-2] in split(items, "test")[1] for items in valid_at_test)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_nothing_is_masked_when_masking_is_off(model: str, build: Build) -> None:
    found = masked_items(build(model, mask_history=False), "test")
    assert len(found) == 30 and all(masked == set() for _, masked in found.values())


def test_recboles_way_is_the_default(build: Build) -> None:
    assert not any(masked for _, masked in masked_items(build("SASRec"), "test").values())
    assert all(masked for _, masked in masked_items(build("BPR"), "test").values())


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_masked_items_have_no_score(
    model: str, build: Build, reference: dict[str, list[str]], tmp_path: Path
) -> None:
    parts = build(model, mask_history=True)
    config, dataset = parts["config"], parts["dataset"]
    net = config.model_class(config, parts["train"]._dataset)
    (tmp_path / "run").mkdir()
    trainer = build_trainer(config, net, tmp_path / "run", CallbackList(), {})
    trainer.tot_item_num = dataset.item_num
    net.eval()
    seen = 0
    for batch in parts["test"]:
        with torch.no_grad():
            interaction, scores, _, _ = trainer._full_sort_batch_eval(batch)
        users = tokens(dataset, "user_id", interaction["user_id"])
        for user, row in zip(users, scores, strict=True):
            hidden = tokens(dataset, "item_id", torch.where(torch.isinf(row))[0])
            assert set(hidden) == {"[PAD]"} | split(reference[user], "test")[1]
            seen += 1
    assert seen == 30


# ---- sampled negatives


def drawn(loader: Any) -> list[list[int]]:
    """Return every batch's rows (user, item): each user's target and its negatives."""
    return [
        [*zip(batch[0]["user_id"].tolist(), batch[0]["item_id"].tolist(), strict=True)]
        for batch in loader
    ]


@pytest.mark.parametrize("mode", ["uni5", "pop5"])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_negatives_depend_on_seed_phase_and_user_alone(model: str, mode: str, build: Build) -> None:
    parts = build(model, mode)
    np.random.seed(1)
    first = drawn(parts["test"])
    assert drawn(parts["test"]) == first, "a second evaluation"
    np.random.seed(99)
    again = build(model, mode)  # another process: built anew, another state of the generator
    np.random.random(17)
    assert drawn(again["test"]) == first
    rows = sorted(row for batch in first for row in batch)
    few = 7 * 4 * parts["dataset"].item_num / 2**20  # MiB of scores of 7 users
    other_batches = build(model, mode, eval_memory_mib=few)
    assert len(drawn(other_batches["test"])) > len(first)
    assert sorted(row for batch in drawn(other_batches["test"]) for row in batch) == rows
    assert drawn(build(model, mode, seed=4)["test"]) != first


class DrawnUserByUser(FrozenNegativesLoader):
    """RecBole's loop over users, seeded for each user: what our batches must be."""

    compact = False

    def collate_fn(self, index: Any) -> Any:
        return NegSampleEvalDataLoader.collate_fn(self, index)

    def _neg_sampling(self, inter_feat: Any) -> Any:
        phase = {"valid": 1, "test": 2}[self._sampler.phase]
        user = int(inter_feat["user_id"][0])
        np.random.seed([self.config["seed"] & 0x7FFFFFFF, phase, user])
        return super()._neg_sampling(inter_feat)


@pytest.mark.parametrize("mask_history", [True, False])
@pytest.mark.parametrize("several", [False, True], ids=["one positive", "several"])
@pytest.mark.parametrize("mode", ["uni5", "pop5"])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_batches_are_those_of_recboles_loop_over_users(
    model: str, mode: str, several: bool, mask_history: bool, build: Build
) -> None:
    order = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO" if model == "SASRec" else "RO"}
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
    more: dict[str, Any] = {"load_col": columns, "mask_history": mask_history}
    if several:
        more["eval_args"] = {**order, "mode": mode}
    parts = build(model, mode, eval_memory_mib=7 * 4 * 41 / 2**20, **more)
    for phase in ("valid", "test"):
        loader = parts[phase]
        batches = [*loader, *loader]  # the second time nothing is drawn
        loader.__class__ = DrawnUserByUser
        expected = [*loader]
        assert len(expected) > 1 and len(batches) == 2 * len(expected)
        for ours, theirs in zip(batches, expected * 2, strict=True):
            assert set(ours[0].columns) == set(theirs[0].columns)
            for field in ours[0].columns:
                assert torch.equal(ours[0][field], theirs[0][field]), field
            assert all(torch.equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))


@pytest.mark.parametrize("mode", ["full", "uni5"])
@pytest.mark.parametrize(("model", "bound"), [("SASRec", 4), ("BPR", 7), ("NeuMF", 1)])
def test_a_batch_has_as_many_users_as_the_memory_has_room_for(
    model: str, bound: int, mode: str, build: Build
) -> None:
    """SASRec: at most eval_batch_size histories. NeuMF scores pairs, and RecBole's size stays."""
    more = {"eval_batch_size": 4} if model == "SASRec" else {"eval_batch_size": 41}
    parts = build(model, mode, eval_memory_mib=7.5 * 4 * 41 / 2**20, **more)
    first = next(iter(parts["test"]))
    assert len(first[0]["user_id"].unique()) == (6 if (model, mode) == ("NeuMF", "uni5") else bound)


def test_negatives_of_validation_and_test_differ(build: Build) -> None:
    parts = build("SASRec", "uni10")
    users = {
        phase: {
            u: [i for v, i in batch if v == u] for batch in drawn(parts[phase]) for u, _ in batch
        }
        for phase in ("valid", "test")
    }
    same = [users["valid"][u][1:] == users["test"][u][1:] for u in users["valid"]]
    assert not any(same)


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_an_evaluation_leaves_the_global_generator_as_it_was(model: str, build: Build) -> None:
    parts = build(model, "uni5")
    np.random.seed(3)
    before = np.random.get_state()
    drawn(parts["valid"])
    after = np.random.get_state()
    assert (before[1] == after[1]).all() and before[2:] == after[2:]


@pytest.mark.parametrize("mode", ["uni20", "pop20"])
def test_sampled_negatives_leave_out_the_masked_history(
    mode: str, build: Build, reference: dict[str, list[str]]
) -> None:
    def negatives(**settings: Any) -> Iterator[tuple[str, str, set[str]]]:
        parts = build("SASRec", mode, user_inter_num_interval="[0,20]", **settings)
        dataset = parts["dataset"]
        for batch in drawn(parts["test"]):
            users = tokens(dataset, "user_id", [user for user, _ in batch])
            items_of = tokens(dataset, "item_id", [item for _, item in batch])
            for user in set(users):
                items = [i for u, i in zip(users, items_of, strict=True) if u == user]
                assert len(items) == 21
                yield user, items[0], set(items[1:])

    shared = 0
    for user, target, items in negatives(mask_history=True):
        expected, history = split(reference[user], "test")
        assert target == expected
        assert not items & (history | {target, "[PAD]"})
    for user, target, items in negatives(mask_history=False):
        assert target not in items
        shared += len(items & split(reference[user], "test")[1])
    assert shared > 0, "RecBole's way: only the target is left out"


def test_a_user_who_has_had_every_item_is_refused_not_waited_for(build: Build) -> None:
    settings = {"val_interval": {"item_id": ["i0", "i1", "i4", "i13"]}, "mask_history": True}
    parts = build("SASRec", "uni3", **settings)
    with pytest.raises(UserError, match="some user has had all; set eval_args.mode=full"):
        drawn(parts["test"])
