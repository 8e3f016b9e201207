"""FTRagRec: the contract, and every claim of docs/ftragrec.md that a small data set can show."""

from __future__ import annotations

import copy
import json
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.prefix_dataset import ROW_ID
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.models import ftragrec_calibration
from recbole_ext.models.sequential import ftragrec
from recbole_ext.modules import calibration, retrieval_mix
from recbole_ext.modules.memory import random_places
from recbole_ext.modules.mixing import MixSettings
from recbole_ext.paths import data_folder
from recbole_ext.registry import get_model
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import TrainState, UserError
from tests.modules.test_calibration import by_the_rule

MIXES = ["log_linear", "probability", "vector", "gate"]
FIXED = {"calibrate": "none", "kl_small_weight": 0.0, "enhanced_rec_weight": 1.0}


class TestFTRagRec(ModelContract):
    model = "FTRagRec"
    # the frozen encoder's own loss is a constant of the sum: let the other one dominate
    settings = {"enhanced_rec_weight": 10.0}
    # the last layer of a block starts at zero, so the first one's gradient is zero at first
    zero_gradient = ("*.key.bias", "retrieval.retriever.blocks.*.dense_1.*")

    def test_a_trainer_without_callbacks_scores_with_todays_memory_and_says_what_it_lacks(
        self, net, config, loaders, test_batch
    ):
        net.keeper.scoring()
        Trainer(config, net).fit(loaders[0], saved=False, show_progress=False)
        assert net.result_extra()["retrieval"]["is_calibrated"] is False
        fresh = self.make_model(config, loaders[0].dataset, seed=77)
        fresh.load_state_dict(net.state_dict())
        found = net.eval().full_sort_predict(test_batch)
        assert torch.equal(found, fresh.eval().full_sort_predict(test_batch))


class TestFTRagRecUnfrozen(TestFTRagRec):
    settings = {"freeze": "none"}


class TestFTRagRecProbability(TestFTRagRec):
    settings = {"mix": "probability", "enhanced_rec_weight": 10.0}


class TestFTRagRecGate(TestFTRagRec):
    settings = {"mix": "gate", "enhanced_rec_weight": 10.0}


class TestFTRagRecVector(TestFTRagRec):
    # an untrained encoder has next to nothing to gain from a vector mix but through itself
    settings = {"mix": "vector", "top_k": 5, "freeze": "none", "kl_small_weight": 1.0}


@pytest.fixture
def make(tiny_data_path, tmp_path):
    """Build a model on tiny data: ``make(key=value)`` returns model and loaders."""

    def build(model: str = "FTRagRec", files: tuple = (), seed: int = 1, **settings: Any) -> Any:
        contract = TestFTRagRec()
        contract.model = model
        contract.settings = {"pretrain": "none", **settings}
        if files:
            plain = contract.make_config(tiny_data_path, tmp_path).external_config_dict
            config = Config(model, "tiny", files, {**plain, **settings})
        else:
            config = contract.make_config(tiny_data_path, tmp_path)
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        loaders = create_loaders(config, dataset)
        net = contract.make_model(config, loaders[0]._dataset, seed)
        net.vocabulary = vocabulary_of(dataset)
        return net, loaders

    return build


def train(net: Any, loader: Any, epochs: int = 1, **options: Any) -> None:
    """Train with Adam, refreshing the memory at every epoch."""
    optimizer = torch.optim.Adam(net.parameters(), **{"lr": 0.01, **options})
    for _ in range(epochs):
        net.refresh_memory()
        net.train()
        for batch in loader:
            optimizer.zero_grad()
            net.calculate_loss(batch).backward()
            optimizer.step()
    net.eval()


def first_batch(loader: Any) -> Any:
    batch = next(iter(loader))
    return batch[0] if isinstance(batch, tuple) else batch


def shake(module: torch.nn.Module, scale: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))


# ---- scores against a loop over everything


@torch.no_grad()
def naive_log_prob(net: Any, batch: Any, queries: list[int], mix: str) -> list[np.ndarray]:
    """Return log p of all items but the padding for some queries, from rows and weights alone."""
    view, weight = net.retrieval.retriever, net.item_weight.double().numpy()
    item_seq, lengths, targets, users = net.keeper.rows.by_row_id()

    def encode(history, length):
        return net.encoder(history[: int(length)].view(1, -1), torch.tensor([int(length)]))

    def unit(state):
        vector = view(state)[0].double().numpy()
        return vector / np.linalg.norm(vector)

    keys = [unit(encode(*row)) for row in zip(item_seq, lengths, strict=True)]
    given, heat = float(net.retrieval.alpha), net.retrieval.settings()["temperature"]
    smoothing = net.retrieval.settings().get("smoothing")
    wanted = []
    for q in queries:
        h = encode(batch[net.ITEM_SEQ][q], batch[net.ITEM_SEQ_LEN][q])
        others = [r for r in range(len(keys)) if int(users[r]) != int(batch[net.USER_ID][q])]
        near = sorted(others, key=lambda r: -(keys[r] @ unit(h)))[: int(net.retrieval.n_neighbours)]
        cosines = np.array([keys[r] @ unit(h) for r in near])
        attention = np.exp(cosines / heat)
        attention /= attention.sum()
        a = given
        if mix == "gate":
            dense = net.retrieval.gate.dense
            facts = [cosines.max(), cosines.mean(), (attention**2).sum()]
            a = 1 / (1 + np.exp(-(dense.weight[0].double().numpy() @ facts + float(dense.bias))))
        state = h[0].double().numpy()
        if mix == "vector":
            retrieved = sum(w * weight[targets[r]] for w, r in zip(attention, near, strict=True))
            state = (1 - a) * state + a * retrieved
        p = np.exp(weight[1:] @ state)
        p /= p.sum()
        if mix == "log_linear":
            mass = np.zeros(len(p))
            for w, r in zip(attention, near, strict=True):
                mass[int(targets[r]) - 1] += w
            p *= (1 + mass / smoothing) ** a
            p /= p.sum()
        elif mix != "vector":
            p *= 1 - a
            for w, r in zip(attention, near, strict=True):
                p[int(targets[r]) - 1] += a * w
        wanted.append(np.log(p))
    return wanted


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("index", ["brute_force", "exact"])
def test_scores_are_those_of_a_loop_over_the_memory(make, mix, index):
    net, loaders = make(mix=mix, index=index, top_k=7, alpha=0.4, **FIXED)
    shake(net.retrieval.retriever.blocks, 0.05)
    shake(net.encoder, 0.1)  # states that differ: no ties among the neighbours
    if mix == "gate":
        shake(net.retrieval.gate)
    net.eval()
    batch = first_batch(loaders[2])
    scores = net.full_sort_predict(batch)
    for row, wanted in zip((0, 19), naive_log_prob(net, batch, [0, 19], mix), strict=True):
        assert scores[row, 1:].log_softmax(0).numpy() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
def test_losses_and_scores_are_the_same_mixture(make, mix):
    net, loaders = make(mix=mix, alpha=0.5, top_k=4, **FIXED)
    train(net, loaders[0])
    net.refresh_memory()
    if mix == "gate":
        shake(net.retrieval.gate)
    batch = first_batch(loaders[0])
    labels = batch[net.POS_ITEM_ID]
    scores = net.full_sort_predict(batch)[:, 1:].log_softmax(1)
    wanted = -scores[torch.arange(len(labels)), labels - 1].mean()
    assert net.losses(batch)["enhanced"].item() == pytest.approx(wanted.item(), abs=1e-4)


def test_the_log_linear_mix_is_trained_by_the_loss_of_the_probability_mix(make):
    losses = []
    for settings in ({"alpha": 3.0, "train_alpha": 0.4}, {"mix": "probability", "alpha": 0.4}):
        net, loaders = make(top_k=9, **{**FIXED, "kl_small_weight": 0.1}, **settings)
        losses.append(
            {name: value.item() for name, value in net.losses(first_batch(loaders[0])).items()}
        )
    assert losses[0] == losses[1] and losses[0]["enhanced"] > 0 and losses[0]["kl"] > 0


def test_predict_encodes_a_history_once_for_all_its_candidates(make):
    net, loaders = make(top_k=5, eval_args={"mode": "uni20"}, **FIXED)
    net.eval()
    encode, encoded = net.encoder.forward, []
    batch = first_batch(loaders[2])
    wanted = net.full_sort_predict(batch)[torch.arange(len(batch)), batch[net.ITEM_ID]]
    net.encoder.forward = lambda seq, length: (encoded.append(len(seq)), encode(seq, length))[1]
    assert torch.allclose(net.predict(batch), wanted, atol=1e-5)
    assert encoded == [len(batch[net.USER_ID].unique())] and len(batch) > 2 * encoded[0]
    one = batch[[0, 0, 1]]  # another user with the same history may find other rows
    one.interaction[net.USER_ID] = torch.tensor([1, 2, 2])
    first = net.full_sort_predict(one)[torch.arange(3), one[net.ITEM_ID]]
    assert torch.allclose(net.predict(one), first, atol=1e-5) and first[0] != first[1]


@pytest.mark.parametrize("mix", MIXES)
def test_a_scoring_multiplies_by_all_items_once(make, monkeypatch, mix):
    net, loaders = make(mix=mix, top_k=5, **FIXED)
    calls, item_logits = [], retrieval_mix.item_logits
    for module in (retrieval_mix, ftragrec):
        monkeypatch.setattr(
            module, "item_logits", lambda *given: (calls.append(1), item_logits(*given))[1]
        )
    net.eval().full_sort_predict(first_batch(loaders[2]))
    assert calls == [1]


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_rec_is_the_encoders_cross_entropy(make, freeze):
    net, loaders = make(freeze=freeze, **FIXED)
    net.eval()
    batch = first_batch(loaders[0])
    logits = net.encode(batch) @ net.item_weight[1:].T
    wanted = torch.nn.functional.cross_entropy(logits, batch[net.POS_ITEM_ID] - 1)
    found = net.losses(batch)["rec"]
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert found.requires_grad == (freeze == "none")


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_skipping_rows_without_the_label_changes_neither_loss_nor_gradient(
    make, monkeypatch, freeze
):
    def run(every_row: bool) -> list[torch.Tensor]:
        net, loaders = make(freeze=freeze, top_k=5, **{**FIXED, "kl_small_weight": 0.0})
        if every_row:
            monkeypatch.setattr(type(net.retrieval), "_every_row_counts", lambda self: True)
        shake(net.encoder, 0.1)
        net.eval()
        loss = net.losses(first_batch(loaders[0]))["enhanced"]
        loss.backward()
        return [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]

    torch.manual_seed(4)
    some = run(False)
    torch.manual_seed(4)
    for mine, theirs in zip(some, run(True), strict=True):
        torch.testing.assert_close(mine, theirs)


# ---- 1: the loss trains the retriever, and nothing frozen moves


@pytest.mark.parametrize("mix", MIXES)
def test_the_enhanced_loss_has_a_gradient_for_the_retriever(make, mix):
    net, loaders = make(mix=mix, top_k=20, **FIXED)
    shake(net.encoder, 0.1)
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    retriever = net.retrieval.retriever
    assert (retriever.blocks[0].dense_2.weight.grad != 0).any()
    assert retriever.log_temperature.grad != 0
    if mix == "gate":
        assert (net.retrieval.gate.dense.weight.grad != 0).any()


def test_the_gradient_reaches_the_memory_side_too(make):
    """With detached keys the retriever would learn from the query alone."""
    net, loaders = make(top_k=20, **FIXED)
    net.keeper.training(net.memory_weights).states.requires_grad_()
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    rows_touched = (net.keeper.training(net.memory_weights).states.grad != 0).any(1).sum()
    assert rows_touched > len(first_batch(loaders[0]))  # more than the queries themselves


def test_frozen_tensors_are_bit_identical_after_training(make):
    net, loaders = make()
    before = copy.deepcopy(net.encoder.state_dict())
    moved = copy.deepcopy(net.retrieval.state_dict())
    train(net, loaders[0], epochs=2, weight_decay=0.1)
    for name, value in net.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    changed = [n for n, v in net.retrieval.state_dict().items() if not torch.equal(v, moved[n])]
    assert "retriever.blocks.0.dense_2.weight" in changed


PARTS = ["item_embedding", "position_embedding", "LayerNorm", "trm_encoder"]


@pytest.mark.parametrize(
    "freeze", ["all", ["all"], "encoder.*", "enc*", [f"encoder.{part}.*" for part in PARTS]]
)
def test_a_frozen_encoder_is_looked_up_however_it_is_spelled(make, freeze):
    """No dropout, no Transformer in a step, no gradient of ``rec``, no encoder in the snapshot."""
    net, loaders = make(freeze=freeze)
    net.refresh_memory()
    net.train()
    assert net.training and not net.encoder.training and net.retrieval.training
    net.encoder.forward = None  # nothing is encoded in a step
    losses = net.losses(first_batch(loaders[0]))
    assert not losses["rec"].requires_grad and losses["enhanced"].requires_grad
    blocks = net.retrieval.retriever.blocks
    assert net.memory_weights.numel() == sum(p.numel() for p in blocks.parameters())


@pytest.mark.parametrize("freeze", ["none", [f"encoder.{part}.*" for part in PARTS[:-1]]])
def test_an_encoder_that_trains_in_part_has_dropout_and_is_in_the_snapshot(make, freeze):
    net, _ = make(freeze=freeze)
    assert net.train().encoder.training
    assert net.memory_weights.numel() > net.item_weight.numel()


def test_the_freeze_callback_thaws_what_the_model_left_to_train(make):
    net, loaders = make(freeze="none")
    (freeze,) = build_callbacks(
        [{"Freeze": {"rules": [{"pattern": "encoder.*", "until_epoch": 1}]}}]
    )
    state = TrainState(net, torch.optim.SGD(net.parameters(), lr=0.1), 2, steps_per_epoch=1)
    freeze.on_fit_start(state)
    for epoch, is_frozen in enumerate((True, False)):
        state.epoch = epoch
        net.train()
        freeze.on_batch_start(state)
        assert net.encoder.training is not is_frozen
        net.calculate_loss(first_batch(loaders[0])).backward()
        assert (net.item_weight.grad is None) is is_frozen


def test_an_encoder_unfrozen_behind_freeze_all_is_an_error(make):
    net, loaders = make()
    net.encoder.LayerNorm.weight.requires_grad_()
    with pytest.raises(UserError, match="unfroze it; set freeze: none"):
        net.losses(first_batch(loaders[0]))


def test_parts_are_frozen_by_name(make):
    net, loaders = make(freeze=["encoder.item_embedding.*", "encoder.position_embedding.*"])
    before = copy.deepcopy(net.encoder.state_dict())
    train(net, loaders[0])
    after = net.encoder.state_dict()
    assert torch.equal(after["item_embedding.weight"], before["item_embedding.weight"])
    assert not torch.equal(after["LayerNorm.weight"], before["LayerNorm.weight"])
    with pytest.raises(UserError, match="'encodr.\\*' matches no parameter.*did you mean"):
        make(freeze="encodr.*")


# ---- 2: the memory is that of the weights


def test_a_refresh_after_training_changes_the_neighbours(make):
    net, loaders = make(top_k=10)
    net.refresh_memory()
    table = net.keeper.training(net.memory_weights).neighbours_of_rows(10).clone()
    shake(net.retrieval.retriever.blocks)
    assert torch.equal(net.keeper.training(net.memory_weights).neighbours_of_rows(10), table)
    net.refresh_memory()
    assert not torch.equal(net.keeper.training(net.memory_weights).neighbours_of_rows(10), table)


@pytest.mark.parametrize(("interval", "wanted"), [(1, 4), (3, 2), (10, 1)])
@pytest.mark.parametrize("original", [False, True])
def test_the_interval_says_how_often_the_memory_is_refreshed(make, interval, wanted, original):
    path = data_folder("properties") / "model" / "FTRagRec-original.yaml"
    net, _ = make(files=(path,) if original else (), retriever_update_interval=interval)
    specs = read_yaml(path if original else path.with_name("FTRagRec.yaml"))["callbacks"]
    refresh = next(c for c in build_callbacks(specs) if type(c).__name__ == "FaissRefresh")
    calls = []
    net.refresh_memory = lambda: calls.append(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = TrainState(net, optimizer, total_epochs=4, steps_per_epoch=1)
    refresh.on_fit_start(state)
    for epoch in range(4):
        state.epoch = state.step = epoch
        refresh.on_epoch_start(state)
    assert len(calls) == wanted


@pytest.mark.parametrize(
    ("freeze", "interval"), [("all", 10), ("none", 1), ("encoder.trm_encoder.*", 1)]
)
def test_states_that_change_are_searched_in_every_epoch(make, freeze, interval):
    net, _ = make(freeze=freeze)
    assert net.refresh_interval == interval


@pytest.mark.parametrize("part", ["retriever", "encoder"])
def test_loading_a_checkpoint_is_enough_to_score_with_its_memory(make, part):
    net, loaders = make(top_k=5, **FIXED)
    best = copy.deepcopy(net.state_dict())
    net.eval()
    batch = first_batch(loaders[2])
    wanted, evidence = net.full_sort_predict(batch), net.explain(user=3)
    shake(net.encoder if part == "encoder" else net.retrieval.retriever.blocks)
    assert not torch.equal(net.full_sort_predict(batch), wanted)
    assert [n.row for n in net.explain(user=3)] != [n.row for n in evidence]
    net.load_state_dict(best)
    assert torch.equal(net.full_sort_predict(batch), wanted)
    assert net.explain(user=3) == evidence


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_a_stale_memory_is_restored_with_the_weights(make, freeze):
    """Between refreshes training depends on older weights: a resumed run must have them."""
    net, loaders = make(freeze=freeze, top_k=6, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    train(net, loaders[0])
    shake(net.retrieval.retriever.blocks)
    if freeze == "none":
        shake(net.encoder, 0.1)
    batch = first_batch(loaders[0])
    wanted = net.losses(batch)
    other, _ = make(freeze=freeze, top_k=6, seed=9, hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    other.load_state_dict(net.state_dict())
    found = other.eval().losses(batch)
    assert {n: v.item() for n, v in found.items()} == {n: v.item() for n, v in wanted.items()}
    other.refresh_memory()
    assert other.losses(batch)["enhanced"].item() != wanted["enhanced"].item()


def test_a_copy_of_the_model_is_independent(make):
    net, loaders = make()
    net.eval()
    batch = first_batch(loaders[2])
    wanted = net.full_sort_predict(batch)
    twin = copy.deepcopy(net)
    shake(net)
    assert torch.equal(twin.full_sort_predict(batch), wanted)


# ---- 3: nobody retrieves himself


def test_a_training_row_never_finds_rows_of_its_user(make):
    net, loaders = make()
    memory = net.keeper.training(net.memory_weights)
    table = memory.neighbours_of_rows(100).long()
    users = memory.rows.users
    found = table >= 0
    assert found.any(1).all()
    assert not (users[table.clamp_min(0)] == users[:, None])[found].any()


def test_row_and_later_finds_earlier_rows_of_the_user_only(make):
    net, loaders = make(exclude="row_and_later")
    memory = net.keeper.training(net.memory_weights)
    table = memory.neighbours_of_rows(len(memory.rows)).long()
    own_and_earlier = 0
    for place, near in enumerate(table):
        near = near[near >= 0]
        mine = near[memory.rows.users[near] == memory.rows.users[place]]
        assert (mine < place).all()
        own_and_earlier += len(mine)
    assert own_and_earlier > 0


@pytest.mark.parametrize("exclude", ["user", "row_and_later"])
def test_test_queries_find_the_users_training_rows_only_by_policy(make, exclude):
    net, loaders = make(exclude=exclude)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    near = net.search(net.encode(batch), batch, memory, len(memory.rows))[1]
    own = (memory.rows.users[near.clamp_min(0)] == batch[net.USER_ID][:, None]) & (near >= 0)
    assert own.any() == (exclude == "row_and_later")


@pytest.mark.parametrize("mix", MIXES)
def test_without_any_neighbour_the_scores_are_the_encoders(make, mix):
    net, loaders = make(mix=mix)
    users = net.keeper.rows.users
    everyone = torch.tensor([[0, len(users)]])
    net.keeper.rows.excluded = lambda policy, asked, row_id=None: everyone.expand(len(asked), 2)
    net.eval()
    batch = first_batch(loaders[2])
    logits = net.encode(batch) @ net.item_weight.T
    assert torch.equal(net.full_sort_predict(batch)[:, 1:], logits[:, 1:])
    losses = net.losses(first_batch(loaders[0]))
    sum(losses.values()).backward()
    assert losses["enhanced"].item() == pytest.approx(0.5 * losses["rec"].item(), abs=1e-5)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


# ---- 4: quality


def test_quality_threshold_drops_dissimilar_neighbours(make):
    net, loaders = make(quality_threshold=0.2, top_k=50, **FIXED)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    similarity, near = net.search(net.encode(batch), batch, memory, 50)
    found = net.retrieval.find(similarity, near, memory, net.retrieval.for_scores())
    assert torch.equal(found.valid, similarity >= 0.2)
    assert 0 < found.valid.sum() < found.valid.numel()
    assert (found.weights[~found.valid] == 0).all() and (found.targets[~found.valid] == 0).all()


def test_a_threshold_that_nothing_meets_leaves_the_encoder_alone(make):
    net, loaders = make(quality_threshold=1.0, **FIXED)
    shake(net.encoder, 0.1)
    net.eval()
    batch = first_batch(loaders[2])
    similarity, near = net.search(net.encode(batch), batch, net.keeper.scoring(), 1)
    alone = similarity[:, 0] < 1
    assert alone.any()
    wanted = net.encode(batch) @ net.item_weight.T
    assert torch.equal(net.full_sort_predict(batch)[alone, 1:], wanted[alone, 1:])


def test_quality_percentile_drops_that_share_of_the_training_pairs(make):
    net, loaders = make(quality_percentile=30.0, top_k=20, **FIXED)
    memory = net.keeper.training(net.memory_weights)
    places = torch.arange(len(memory.rows))
    near = memory.neighbours_of_rows(20).long()
    with torch.no_grad():
        found = net.retrieval.weigh(memory.states[places], near, memory)
    assert found.valid.float().mean().item() == pytest.approx(0.7, abs=0.01)


# ---- 6, 7: alpha 0, KL


def write_warm_start(net: Any, path: Any, **changes: Any) -> Any:
    payload = {
        "format": "recbole_ext/1",
        "model": "DuoRec",
        "dataset": "tiny",
        "vocabulary": net.vocabulary,
        "settings": {"n_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
        "state_dict": net.state_dict(),
    }
    path.mkdir()
    torch.save({**payload, **changes}, path / "best.pt")
    return path


def test_a_warm_start_must_have_seen_the_data_of_this_run(make, tmp_path):
    duorec, loaders = make("DuoRec")
    path = write_warm_start(duorec, tmp_path / "run")
    result = {"dataset_fingerprint": loaders[0].dataset.fingerprint}
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    make(pretrained_path=str(path))
    (path / "result.json").write_text(json.dumps({"dataset_fingerprint": "another"}))
    with pytest.raises(UserError, match="trained on other interactions"):
        make(pretrained_path=str(path))


def test_alpha_zero_is_duorec_bit_for_bit(make, tmp_path):
    duorec, loaders = make("DuoRec")
    train_duorec = torch.optim.Adam(duorec.parameters(), lr=0.01)
    duorec.calculate_loss(first_batch(loaders[0])).backward()
    train_duorec.step()
    path = write_warm_start(duorec, tmp_path / "run")
    net, _ = make(alpha=0.0, calibrate="none", pretrained_path=str(path))
    mixing_net, _ = make(pretrained_path=str(path), **FIXED)
    train(net, loaders[0])
    for model in (duorec, net, mixing_net):
        model.eval()
    batch = first_batch(loaders[2])
    with torch.no_grad():
        assert torch.equal(net.encode(batch), duorec.encode(batch))  # h after the warm start
        assert torch.equal(net.full_sort_predict(batch), duorec.full_sort_predict(batch))
        assert torch.equal(net.predict(batch), duorec.predict(batch))
        assert not torch.equal(mixing_net.full_sort_predict(batch), duorec.full_sort_predict(batch))


def test_kl_is_weighted_named_and_left_out_at_zero(make):
    net, loaders = make(kl_small_weight=0.5, top_k=20)
    batch = first_batch(loaders[0])
    net.eval()
    half = net.losses(batch)["kl"].item()
    net.retrieval.kl_weight = 1.0
    assert net.losses(batch)["kl"].item() == pytest.approx(2 * half) and half > 0
    net.retrieval.kl_weight = 0.0
    assert list(net.losses(batch)) == ["rec", "enhanced"]


@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
@pytest.mark.parametrize("kl_target", ["label", "model"])
def test_a_threshold_that_drops_nothing_changes_no_loss(make, mix, kl_target):
    def losses(threshold: float) -> list[torch.Tensor]:
        settings = {**FIXED, "kl_small_weight": 1.0, "kl_target": kl_target}
        net, loaders = make(mix=mix, top_k=3, quality_threshold=threshold, **settings)
        torch.manual_seed(3)
        shake(net.encoder, 0.1)
        net.refresh_memory()
        found = net.losses(first_batch(loaders[0]))
        sum(found.values()).backward()
        assert found["kl"] > 0
        retriever = net.retrieval.retriever
        return [*found.values(), retriever.blocks[0].dense_2.weight.grad]

    for without, with_it in zip(losses(-1.0), losses(-0.99999), strict=True):
        torch.testing.assert_close(without, with_it)


@pytest.mark.parametrize("mix", ["probability", "gate"])
def test_a_row_whose_neighbours_never_lead_to_the_label_has_no_kl(make, mix):
    settings = {**FIXED, "kl_small_weight": 1.0}
    net, loaders = make(mix=mix, top_k=3, **settings)
    shake(net.encoder, 0.1)
    net.refresh_memory()
    batch, memory = first_batch(loaders[0]), net.keeper.scoring()
    places = memory.place[batch[ROW_ID]]
    near = memory.neighbours_of_rows(3)[places].long()
    leads = (memory.targets[near] == memory.targets[places][:, None]).any(1)
    alone = [net.losses(batch[[row]])["kl"].item() for row in range(len(batch))]
    assert [kl > 0 for kl in alone] == leads.tolist() and 0 < leads.sum() < len(batch)


def test_kl_of_the_vector_mix_compares_with_each_neighbour_alone(make):
    settings = {"kl_small_weight": 1.0, "kl_temperature": 0.5, "alpha": 0.4, "calibrate": "none"}
    net, loaders = make(mix="vector", kl_target="label", top_k=4, **settings)
    shake(net.encoder, 0.3)
    net.refresh_memory()
    batch, memory = first_batch(loaders[0])[:6], net.keeper.scoring()
    weight, temperature = net.item_weight.double().numpy(), net.retrieval.settings()["temperature"]
    terms = []
    for place in memory.place[batch[ROW_ID]].tolist():
        near = memory.neighbours_of_rows(4)[place].tolist()
        state, label = memory.states[place].double().numpy(), int(memory.targets[place])
        cosine, alone = [], []
        for other in near:
            key = memory.states[other].double().numpy()
            cosine.append(state @ key / np.linalg.norm(state) / np.linalg.norm(key))
            logits = weight[1:] @ (0.6 * state + 0.4 * weight[int(memory.targets[other])])
            alone.append(np.exp(logits[label - 1]) / np.exp(logits).sum())
        p, q = np.exp(np.array(cosine) / temperature), np.array(alone) ** (1 / 0.5)
        p, q = p / p.sum(), q / q.sum()
        terms.append((p * np.log(p / q)).sum())
    assert net.losses(batch)["kl"].item() == pytest.approx(np.mean(terms), rel=1e-3)


@pytest.mark.parametrize("mix", ["probability", "vector"])
def test_alpha_zero_teaches_the_retriever_nothing(make, mix):
    settings = {**FIXED, "kl_small_weight": 1.0, "alpha": 0.0}
    net, loaders = make(mix=mix, top_k=8, **settings)
    losses = net.losses(first_batch(loaders[0]))
    assert losses["kl"] == 0
    assert losses["enhanced"].item() == pytest.approx(losses["rec"].item(), abs=1e-5)
    sum(losses.values()).backward()
    assert all((p.grad == 0).all() for p in net.retrieval.parameters() if p.grad is not None)


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("mix", ["probability", "vector", "gate"])
def test_autocast_changes_neither_neighbours_nor_what_is_looked_up(make, mix, freeze):
    settings = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    nets = []
    for is_on in (False, True):
        net, loaders = make(mix=mix, freeze=freeze, top_k=5, **settings)
        torch.manual_seed(0)
        shake(net.encoder, 0.02)
        net.memory_weights.copy_(net.keeper.snapshot())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_on):
            losses = net.losses(first_batch(loaders[0]))
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
        nets.append((net, {name: value.item() for name, value in losses.items()}))
    (plain, wanted), (half, found) = nets
    memories = [net.keeper.training(net.memory_weights) for net in (plain, half)]
    tables = [memory.neighbours_of_rows(5) for memory in memories]
    assert torch.equal(*tables) and torch.equal(*(memory.states for memory in memories))
    assert found == pytest.approx(wanted, rel=0.02)
    if freeze == "all":
        assert found["rec"] == wanted["rec"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"quality_threshold": -0.99999},
        {"quality_threshold": 0.7},
        {"mix": "gate"},
        {"kl_target": "model"},
    ],
)
def test_kl_of_a_batch_is_the_mean_over_its_rows(make, more):
    """Rows none of whose neighbours leads to the label have nothing to learn and count as 0.

    Unless the model is asked, which says as much of them as of the others.
    """
    net, loaders = make(
        top_k=8, kl_small_weight=1.0, kl_temperature=0.5, train_alpha=0.3, calibrate="none", **more
    )
    shake(net.encoder, 0.1)
    net.refresh_memory()
    batch = first_batch(loaders[0])
    memory = net.keeper.scoring()
    places = memory.place[batch[ROW_ID]]
    near = memory.neighbours_of_rows(8)[places].long()
    log_prob = memory.label_log_prob(net.item_weight).exp().numpy()
    temperature, terms, n_lost = net.retrieval.settings()["temperature"], [], 0
    least, asks_model = more.get("quality_threshold", -1), "kl_target" in more
    weight = net.item_weight.double()
    for place, row in zip(places.tolist(), near, strict=True):
        is_label = np.array([int(memory.targets[r]) == int(memory.targets[place]) for r in row])
        cosine = [
            torch.cosine_similarity(memory.states[place], memory.states[r], dim=0) for r in row
        ]
        kept = np.array(cosine, dtype=np.float64) >= least
        n_lost += is_label.any() and not is_label[kept].any()
        p = np.exp(np.array(cosine, dtype=np.float64)[kept] / temperature)
        q = (0.7 * log_prob[place] + 0.3 * is_label[kept]) ** (1 / 0.5)
        if asks_model:
            q = np.exp((weight[memory.targets[row]] @ memory.states[place].double()).numpy() / 0.5)
        p, q = p / p.sum(), q / q.sum()
        counts = asks_model or is_label[kept].any()
        terms.append((p * np.log(p / q)).sum() if counts else 0.0)
    assert 0 < np.count_nonzero(terms) and asks_model == (np.count_nonzero(terms) == len(terms))
    assert (n_lost > 0) == (least > 0)  # the threshold takes some rows' label from them
    assert net.losses(batch)["kl"].item() == pytest.approx(np.mean(terms), abs=1e-4)


@pytest.mark.parametrize("mix", ["probability", "vector"])
@pytest.mark.parametrize("kl_target", ["label", "model"])
def test_kl_pulls_the_weights_towards_its_target(make, mix, kl_target):
    settings = {"enhanced_rec_weight": 0.0, "kl_small_weight": 1.0, "kl_target": kl_target}
    net, loaders = make(mix=mix, top_k=8, learn_temperature=True, calibrate="none", **settings)
    shake(net.encoder, 0.1)
    before = sum(float(net.losses(batch)["kl"].detach()) for batch in loaders[0])
    train(net, loaders[0], epochs=5)
    assert sum(float(net.losses(batch)["kl"].detach()) for batch in loaders[0]) < 0.9 * before


# ---- calibration


def ranks_by_scores(net: Any, valid_data: Any) -> np.ndarray:
    """Return the rank of each validation row's label by full scoring, ties in the middle."""
    rows = valid_data._dataset.inter_feat
    scores = net.full_sort_predict(rows)
    own = scores.gather(1, rows[net.POS_ITEM_ID][:, None])
    return (1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) // 2).numpy()


@pytest.mark.parametrize("mix", MIXES)
def test_calibration_takes_the_best_of_the_grid(make, mix):
    grid = {
        "calibrate_alpha": [0, 0.3, 0.8],
        "calibrate_top_k": [2, 20],
        "calibrate_temperature": [0.05, 1.0],
        "calibrate_smoothing": [0.01, 0.3],
    }
    net, loaders = make(mix=mix, top_k=20, calibrate_users=10_000, **grid)
    train(net, loaders[0])
    learned = float(net.retrieval.retriever.temperature)
    alphas = [net.retrieval.train_alpha] if mix == "gate" else grid["calibrate_alpha"]
    floors = grid["calibrate_smoothing"] if mix == "log_linear" else [0.01]
    choices, ranks = calibration.grid(alphas, [2, 20], [0.05, 1.0, learned], floors), []
    for choice in choices:
        net.retrieval.use(choice)
        ranks.append(ranks_by_scores(net, loaders[1]))
    net.retrieval.use(MixSettings(0.5, 7, 0.2, 0.1))  # what stands there before must not matter
    net.train()
    chosen = net.calibrate(loaders[1])
    assert net.training
    best = by_the_rule(np.stack(ranks), mix != "gate")
    gain = [np.where(r <= 10, 1 / np.log2(r + 1), 0).mean() for r in ranks]
    assert chosen["ndcg@10"] == pytest.approx(gain[best], abs=1e-6)
    assert chosen["recall@20"] == pytest.approx((ranks[best] <= 20).mean(), abs=1e-6)
    assert (ranks_by_scores(net.eval(), loaders[1]) == ranks[best]).all()
    assert max(gain) > min(gain)
    if mix != "gate":
        assert chosen["ndcg@10_alone"] == pytest.approx(gain[0], abs=1e-6)
        assert chosen["recall@20_alone"] == pytest.approx((ranks[0] <= 20).mean(), abs=1e-6)


def test_calibration_finds_the_planted_optimum(make):
    """One neighbour per query tells the label, the others all point elsewhere: k must be 1."""
    grid = {
        "calibrate_alpha": [0, 0.5],
        "calibrate_top_k": [1, 2, 10],
        "calibrate_temperature": [1.0],
    }
    net, loaders = make(mix="probability", top_k=10, **grid)
    rows = loaders[1]._dataset.inter_feat
    memory = net.keeper.scoring()
    targets = memory.targets
    label_of_user = dict(
        zip(rows[net.USER_ID].tolist(), rows[net.POS_ITEM_ID].tolist(), strict=True)
    )

    def planted(states, k, users, row_id=None):
        near = []
        for user in users.tolist():
            right = (targets == label_of_user[user]).nonzero().flatten()[:1].tolist()
            wrong = (targets != label_of_user[user]).nonzero().flatten()[: k - 1].tolist()
            near.append(right + wrong + [-1] * (k - len(right) - len(wrong)))
        near = torch.tensor(near)
        return torch.linspace(0.9, 0.8, k).expand(len(near), k), near

    memory.search = planted
    chosen = net.calibrate(loaders[1])
    assert (chosen["alpha"], chosen["top_k"]) == (0.5, 1)


def test_calibrated_settings_are_in_the_state_dict(make):
    grid = {"calibrate_top_k": [3], "calibrate_temperature": [0.123], "calibrate_smoothing": [0.2]}
    net, loaders = make(calibrate_alpha=[0.77], **grid)
    net.calibrate(loaders[1])
    other, _ = make(seed=5)
    other.load_state_dict(net.state_dict())
    assert other.retrieval.settings() == net.retrieval.settings()
    assert other.retrieval.settings()["top_k"] == 3
    assert other.retrieval.settings()["alpha"] == pytest.approx(0.77)
    assert other.retrieval.settings()["smoothing"] == pytest.approx(0.2)


def test_calibration_leaves_out_the_items_that_the_evaluation_does(make, monkeypatch):
    """The whole history, of which the model's own input is only the end."""
    net, loaders = make(mask_history=True, MAX_ITEM_LIST_LENGTH=3, top_k=5)
    batches = []
    monkeypatch.setattr(
        calibration,
        "mixture_ranks",
        lambda batch, choices, mix: (
            batches.append(batch) or torch.ones(len(choices), len(batch.labels))
        ),
    )
    net.calibrate(loaders[1])
    hidden = [set(row.tolist()) - {0} for batch in batches for row in batch.hidden]
    wanted = []
    for interaction, (rows, items), _, _ in loaders[1]:
        wanted += [set(items[rows == row].tolist()) for row in range(len(interaction))]
    assert hidden == wanted and max(map(len, wanted)) > 3


def test_calibration_can_be_off(make):
    net, loaders = make(**FIXED)
    before = net.retrieval.settings()
    assert net.calibrate(loaders[1]) == before == net.retrieval.settings()


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("alphas", [[0], [0.6]])
def test_calibration_leaves_training_alone(make, mix, alphas):
    """Temperature and number of neighbours that rank well are not those to learn with."""
    grid = {"calibrate_alpha": alphas, "calibrate_top_k": [2], "calibrate_temperature": [0.1]}
    net, loaders = make(mix=mix, top_k=20, retriever_temperature=0.17, **grid)
    batch = first_batch(loaders[0])
    before, wanted = copy.deepcopy(net.retrieval.retriever.state_dict()), net.losses(batch)
    chosen = net.calibrate(loaders[1])
    assert chosen["top_k"] == 2 or alphas == [0]
    after = net.retrieval.retriever.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert net.losses(batch) == wanted


def spied_rows(net: Any, monkeypatch: Any) -> list[list[int]]:
    """Return the users of each batch that calibration ranks, filled when it runs."""
    parts: list[list[int]] = []
    ranks = ftragrec_calibration._ranks
    monkeypatch.setattr(
        ftragrec_calibration,
        "_ranks",
        lambda model, batch, *more: (
            parts.append(batch[net.USER_ID].tolist()) or ranks(model, batch, *more)
        ),
    )
    return parts


@pytest.mark.parametrize(
    ("mix", "n_given", "n_wanted"),
    [("log_linear", 7, 7), ("vector", 7, 7), ("gate", 1, 1), ("probability", 99, 30)],
)
def test_calibration_looks_at_evenly_spaced_rows(make, monkeypatch, mix, n_given, n_wanted):
    net, loaders = make(mix=mix, top_k=5, calibrate_users=n_given)
    parts = spied_rows(net, monkeypatch)
    net.calibrate(loaders[1])
    users = loaders[1]._dataset.inter_feat[net.USER_ID].numpy()
    wanted = users[np.linspace(0, len(users) - 1, n_wanted).astype(int)]
    assert [user for part in parts for user in part] == wanted.tolist()


def test_calibration_takes_a_tenth_where_every_choice_scores_all_items(make, monkeypatch):
    net, loaders = make(mix="vector", top_k=5, calibrate_users=300)
    monkeypatch.setattr(ftragrec_calibration, "FEWEST_ROWS", 10)
    parts = spied_rows(net, monkeypatch)
    net.calibrate(loaders[1])
    assert sum(map(len, parts)) == 30
    net.calibrate_users, parts[:] = 150, []
    net.calibrate(loaders[1])
    assert sum(map(len, parts)) == 15


def test_calibration_holds_few_scores_at_a_time(make, monkeypatch):
    net, loaders = make(top_k=5)
    wanted = net.calibrate(loaders[1])
    monkeypatch.setattr(ftragrec_calibration, "CELLS", 4 * net.n_items)
    parts = spied_rows(net, monkeypatch)
    again = net.calibrate(loaders[1])
    assert max(map(len, parts)) == 4
    assert again["ndcg@10_alone"] == pytest.approx(wanted["ndcg@10_alone"])


@pytest.mark.parametrize("part", ["logits", "retriever"])
def test_calibration_refuses_scores_that_are_no_numbers(make, monkeypatch, part):
    net, loaders = make(top_k=5)
    if part == "logits":
        logits = ftragrec_calibration.item_logits
        monkeypatch.setattr(
            ftragrec_calibration, "item_logits", lambda *given: logits(*given) * np.nan
        )
    else:
        with torch.no_grad():
            next(net.retrieval.retriever.blocks.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN.*lower learning_rate"):
        net.calibrate(loaders[1])


def test_the_result_says_calibrated_only_when_it_was(make):
    net, loaders = make(top_k=5)
    assert net.result_extra()["retrieval"]["is_calibrated"] is False
    net.calibrate(loaders[1])
    other, _ = make(top_k=5)
    for model in (net, other):
        model.load_other_parameter(net.other_parameter())  # as a resume does
        assert model.result_extra()["retrieval"]["is_calibrated"] is True
    off, _ = make(top_k=5, **FIXED)
    off.calibrate(loaders[1])
    assert off.result_extra()["retrieval"]["is_calibrated"] is False


def test_training_goes_on_where_calibration_chose_not_to_mix(make):
    net, loaders = make(calibrate_alpha=[0], top_k=20)
    assert net.calibrate(loaders[1])["alpha"] == 0
    assert not net.retrieval.is_active()
    net.losses(first_batch(loaders[0]))["enhanced"].backward()
    assert (net.retrieval.retriever.blocks[0].dense_2.weight.grad != 0).any()


# ---- explanation, controls, memory at test time


def test_explain_names_the_neighbours(make):
    net, loaders = make(top_k=8, **FIXED)
    net.train()
    found = net.explain(user=4)
    assert net.training
    assert sum(n.weight for n in found) == pytest.approx(1, abs=1e-5)
    assert [n.weight for n in found] == sorted((n.weight for n in found), reverse=True)
    rows = loaders[0]._dataset.inter_feat
    user_token, item_token = (
        loaders[0]._dataset.field2id_token[f] for f in (net.USER_ID, net.ITEM_ID)
    )
    for n in found:
        assert n.user != 4 and n.user == int(rows[net.USER_ID][n.row])
        assert n.target == int(rows[net.POS_ITEM_ID][n.row])
        assert n.prefix == [i for i in rows[net.ITEM_SEQ][n.row].tolist() if i]
        assert n.user_token == user_token[n.user] and n.target_token == item_token[n.target]
        assert n.prefix_tokens == [item_token[i] for i in n.prefix]


@pytest.mark.parametrize(("alpha", "mix"), [(0.0, "log_linear"), (0.4, "vector"), (0.4, "gate")])
def test_explain_says_what_share_the_neighbours_have(make, alpha, mix):
    net, _ = make(top_k=8, **{**FIXED, "alpha": alpha, "mix": mix})
    assert all(n.alpha == pytest.approx(alpha) for n in net.explain(user=4))
    assert net.explain(user=4)
    if mix == "gate":
        shake(net.retrieval.gate)
        assert all(abs(n.alpha - alpha) > 1e-3 for n in net.explain(user=4))


def test_explain_of_a_history_is_that_of_its_user_without_the_policy(make):
    net, loaders = make(top_k=8, **FIXED)
    history = net.keeper.rows.history(4)
    as_user, as_history = net.explain(user=4), net.explain(history=history)
    both = net.explain(user=4, history=history)
    assert [n.row for n in both] == [n.row for n in as_user]
    assert any(n.user == 4 for n in as_history)  # nobody in particular: nothing is left out
    assert net.explain(history=[1] * 50)  # longer than the limit
    with pytest.raises(UserError, match="user 999 has no training history"):
        net.explain(user=999)
    with pytest.raises(UserError, match="give a history"):
        net.explain()


def test_random_neighbours_are_others_and_repeatable(make):
    nearest, loaders = make(top_k=5, **FIXED)
    net, _ = make(top_k=5, neighbours="random", **FIXED)
    net.eval(), nearest.eval()
    batch = first_batch(loaders[2])
    assert torch.equal(net.full_sort_predict(batch), net.full_sort_predict(batch))
    assert not torch.equal(net.full_sort_predict(batch), nearest.full_sort_predict(batch))
    assert torch.allclose(net.full_sort_predict(batch[[3]])[0], net.full_sort_predict(batch)[3])
    assert net.result_extra()["retrieval"]["index"] == "random"
    train(net, loaders[0])


def test_random_neighbours_are_the_first_of_one_draw(make):
    """Calibration compares numbers of neighbours: scoring must then use the ones it compared."""
    net, loaders = make(top_k=12, neighbours="random", **FIXED)
    net.eval()
    batch, memory = first_batch(loaders[2]), net.keeper.scoring()
    h = net.encode(batch)
    drawn = memory.search(h, 12, batch[net.USER_ID])
    net.retrieval.use(MixSettings(0.5, 5, 0.3))
    for found, wanted in zip(net.search(h, batch, memory, 5), drawn, strict=True):
        assert torch.equal(found, wanted[:, :5])
    asker = int(batch[net.USER_ID][0])
    near = drawn[1][batch[net.USER_ID] == asker][0, :5]  # drawn by user, whatever the history
    assert {n.row for n in net.explain(user=asker)} == set(memory.rows.order[near].tolist())


def test_the_memory_is_built_with_the_settings(make):
    net, loaders = make(neighbours="random", n_probe=32, top_k=5, **FIXED)
    assert net.keeper.n_probe == 32
    memory, row = net.keeper.scoring(), loaders[0]._dataset.inter_feat[[0]]
    begin, end = memory.rows.begin[int(row[net.USER_ID]) :][:2].tolist()
    key, n_others = row[ROW_ID] + (1 << 32), torch.tensor([len(memory.rows) - (end - begin)])
    drawn = {s: random_places(key, 5, n_others, s)[0].tolist() for s in (0, 2020)}
    wanted = [p + (end - begin) * (p >= begin) for p in drawn[2020]]  # RecBole's own seed
    found = memory.neighbours_of_rows(5)[memory.place[row[ROW_ID]]][0]
    assert found.tolist() == wanted and drawn[0] != drawn[2020]


def test_an_approximate_index_is_measured_for_the_result(make):
    net, _ = make(top_k=5, **{**FIXED, "index": "hnsw"})
    net.keeper.scoring()
    recall = net.result_extra()["retrieval"]["recall"]
    assert 0.5 < recall <= 1
    exact, _ = make(top_k=5, **FIXED)
    exact.keeper.scoring()
    assert "recall" not in exact.result_extra()["retrieval"]


@pytest.mark.parametrize(
    "more", [{}, {"neighbours": "random"}, {"freeze": "none"}, {"mix": "vector"}]
)
def test_a_memory_in_files_trains_and_scores_the_same_to_the_bit(make, tmp_path, more):
    folder = tmp_path / "files"
    folder.mkdir()
    found = []
    for limit in (None, 0):
        net, loaders = make(
            memory_limit_mib=limit, memory_dir=str(folder), memory_include_valid=True, **more
        )
        init_seed(3, True)
        train(net, loaders[0], epochs=2)
        net.calibrate(loaders[1])
        batch, losses = first_batch(loaders[0]), net.losses(first_batch(loaders[0]))
        scores = [net.full_sort_predict(batch)]
        net.extend_memory(loaders[1])
        scores += [net.full_sort_predict(first_batch(loaders[2])), *net.state_dict().values()]
        found.append([*losses.values(), *scores])
        mapped = net.result_extra()["retrieval"]["mapped_mib"]
        assert (mapped > 0) == (limit == 0) and list(folder.iterdir()) == []
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_validation_pairs_join_the_memory_when_asked(make):
    net, loaders = make(top_k=8, exclude="row_and_later", **FIXED)
    net.eval()
    batch = first_batch(loaders[2])
    before, n_rows = net.full_sort_predict(batch), len(net.keeper.rows)
    net.extend_memory(loaders[1])
    assert len(net.keeper.rows) == n_rows + len(loaders[1]._dataset.inter_feat)
    assert not torch.equal(net.full_sort_predict(batch), before)
    history = net.keeper.rows.history(4)
    valid = loaders[1]._dataset.inter_feat
    assert history[-1] == int(valid[net.POS_ITEM_ID][valid[net.USER_ID] == 4])


def test_the_originals_values_load_as_a_user_file(make):
    path = data_folder("properties") / "model" / "FTRagRec-original.yaml"
    net, loaders = make(files=(path,))
    mix = net.retrieval
    assert (mix.mix, mix.top_k, mix.kl_target, mix.quality_threshold) == ("vector", 5, "model", 0.6)
    assert mix.settings() == {
        "alpha": pytest.approx(0.15),
        "top_k": 5,
        "temperature": pytest.approx(0.07),
    }
    assert (mix.kl_weight, net.enhanced_rec_weight, net.refresh_interval) == (0.03, 0.5, 10)
    assert not net.use_calibration and net.is_frozen
    train(net, loaders[0])


def test_result_says_what_was_used(make):
    net, loaders = make(top_k=8)
    net.calibrate(loaders[1])
    report = net.result_extra()["retrieval"]
    assert report["rows"] == 228 and report["index"] == "brute_force"
    assert report["mix"] == "log_linear" and report["is_calibrated"] is True
    assert report["memory_include_valid"] is False and report["alpha"] >= 0


def test_a_gate_does_not_report_the_alpha_that_it_replaces(make):
    net, loaders = make(mix="gate", top_k=8)
    for report in (net.calibrate(loaders[1]), net.result_extra()["retrieval"]):
        assert "alpha" not in report
        assert report["initial_alpha"] == pytest.approx(0.35)


def test_asking_for_the_settings_of_a_learned_temperature_warns_of_nothing(make):
    net, loaders = make(top_k=8, learn_temperature=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.calibrate(loaders[1])
        net.retrieval.settings()
        net.result_extra()


# ---- wrong input


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"top_k": 229},
            "top_k: 229 neighbours cannot come from a memory of 228 rows; give 1 to 228",
        ),
        ({"top_k": 0}, "top_k: 0 neighbours"),
        ({"alpha": 1.0, "mix": "probability"}, "alpha: 1.0 is not between 0 and 0.99"),
        ({"alpha": 101.0}, "alpha: 101.0 is not between 0 and 100"),
        ({"alpha": 0.3, "train_alpha": 0.0}, "train_alpha: 0 leaves .* or train_alpha above 0"),
        ({"smoothing": 0.0}, "smoothing: 0.0 is not between 1e-06 and 1000"),
        ({"calibrate_smoothing": [0.1, -1.0]}, "calibrate_smoothing: .* is not between"),
        ({"mix": "gate", "alpha": 0.0}, "mix: gate .* alpha must be above 0"),
        ({"mix": "gate", "train_alpha": 0.0}, "mix: gate .* train_alpha must be above 0"),
        ({"mix": "gate", "alpha": 0.5, "train_alpha": 0.1}, "gate has one alpha, .* give alpha or"),
        ({"alpha": 0.0}, "alpha: 0 leaves the retriever nothing to learn.*calibrate: none"),
        (
            {"mix": "vectors"},
            "mix: 'vectors' is none of log_linear, probability, vector, gate; did you mean",
        ),
        ({"exclude": "row"}, "exclude: 'row' is none of user, row_and_later"),
        ({"retriever_temperature": 0.0}, "retriever_temperature: 0.0 is not between 0.01 and 5"),
        ({"calibrate_alpha": [0.5, 101.5]}, "calibrate_alpha: .* is not between"),
        ({"calibrate_alpha": [0.5, 1.5], "mix": "gate"}, "calibrate_alpha: .* is not between"),
        ({"calibrate_top_k": []}, "calibrate_top_k: the list is empty"),
        ({"index": "flat"}, "index: 'flat' is none of"),
        ({"quality_percentile": 100.0}, "quality_percentile: 100.0 is not between 0 and 99"),
        ({"calibrate_top_k": [2.5]}, "calibrate_top_k: .* whole numbers"),
        ({"pretrain": "never"}, "pretrain: 'never' is none of auto, none"),
        ({"retriever_inner_size": 0}, "retriever_inner_size: 0 is not between 1"),
        ({"memory_limit_mib": -1}, "memory_limit_mib: -1 is not between 0"),
        ({"n_probe": -3}, "n_probe: -3 is not between 16"),
        ({"freeze": []}, "freeze: \\[\\] .*all, none or names"),
        ({"freeze": [3]}, "freeze: \\[3\\] .*all, none or names"),
        ({"initializer_range": -1.0}, "initializer_range: -1.0 must be greater than 0"),
        ({"attn_dropout_prob": 1.5}, "attn_dropout_prob: 1.5 is not in \\[0, 1\\)"),
        ({"pretrained_path": "nowhere.pt"}, "pretrained_path: nowhere.pt does not exist"),
    ],
)
def test_wrong_settings_are_one_sentence(make, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make(**settings)


@pytest.fixture
def check(tiny_data_path, tmp_path):
    """Check a run's settings as the runner does: ``check(key=value)``."""

    def checked(**settings: Any) -> None:
        config = TestFTRagRec().make_config(tiny_data_path, tmp_path, **settings)
        net_class = get_model("FTRagRec")
        net_class.check_settings(config, SimpleNamespace(inter_feat=range(228)))

    return checked


REFRESH = {"FaissRefresh": {"before_valid": False}}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"callbacks": ["Progress"]},
            "lacks FaissRefresh.*'- FaissRefresh: {before_valid: False}'",
        ),
        ({"callbacks": ["Calibrate"]}, "callbacks: .* lacks FaissRefresh"),
        ({"callbacks": None}, "callbacks: .* lacks FaissRefresh"),
        ({"callbacks": [REFRESH]}, "lacks Calibrate.*'- Calibrate' to it, or set calibrate: none"),
        ({"callbacks": ["Progress"], "calibrate": "none"}, "callbacks: .* lacks FaissRefresh"),
        ({"pretrain": "none"}, "pretrain: none .* freeze: all .*give pretrained_path"),
        ({"pretrain": "none", "freeze": ["all"]}, "pretrain: none without pretrained_path"),
        ({"pretrain": "none", "freeze": "encoder.*"}, "pretrain: none without pretrained_path"),
        ({"pretrain": "none", "freeze": ["*.item_embedding.*"]}, "pretrain: none without"),
        ({"mix": "vectors"}, "mix: 'vectors' is none of"),
        ({"memory_dir": "nowhere"}, "memory_dir: there is no folder 'nowhere'; create it or"),
    ],
)
def test_a_run_that_lacks_what_it_needs_is_refused(check, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        check(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"callbacks": ["FaissRefresh", "Calibrate", "Progress"]},
        {"callbacks": [REFRESH, "recbole_ext.callbacks.calibrate:Calibrate"]},
        {"callbacks": [REFRESH], "calibrate": "none"},
        {"pretrain": "none", "pretrained_path": "somewhere"},
        {"pretrain": "none", "freeze": "none"},
        {"pretrain": "none", "freeze": ["retrieval.*"]},
    ],
)
def test_a_run_that_has_it_is_not(check, settings):
    check(**settings)


def test_a_batch_without_row_ids_says_what_to_do(make):
    net, loaders = make()
    batch = first_batch(loaders[0])
    del batch.interaction[ROW_ID]
    with pytest.raises(UserError, match="PrefixDataset"):
        net.losses(batch)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"user": "anna"}, "user takes an internal id, not 'anna'; dataset.token2id"),
        ({"history": ["B001"]}, "history takes internal item ids, 1 to 40"),
        ({"history": [99999]}, "history takes internal item ids, 1 to 40"),
        ({"history": [0]}, "history takes internal item ids"),
        ({"history": []}, "give a history with items"),
        ({}, "no training history"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(make, asked, sentence):
    net, _ = make()
    with pytest.raises(UserError, match=sentence):
        net.explain(**asked)
