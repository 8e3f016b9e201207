"""``item_init``: a stored feature in the item embedding of RecBole's models."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.manifest import Source
from recbole_ext.features.store import FeatureStore
from recbole_ext.models import item_init
from recbole_ext.models.item_init import start_from, with_item_init
from recbole_ext.quick_start import load_run, run
from recbole_ext.types import UserError


class Fixed:
    """Encodes a number of an item as a vector that it decides."""

    source = Source("fixed", "1")

    def encode(self, contents):
        rows = [np.random.default_rng(int(text)).normal(size=6) for text in contents]
        return Encoded(np.stack(rows).astype(np.float32))


@pytest.fixture
def settings(tiny_settings, tmp_path):
    """Settings of tiny runs, with a feature of all items but two."""
    dataset = create_dataset(Config("BPR", "tiny", None, tiny_settings))
    tokens = dataset.field2id_token["item_id"][3:]
    contents = {str(token): str(i) for i, token in enumerate(tokens)}
    subject = Subject("fixed", "text", "item", "tiny")
    folder = tmp_path / "features" / "tiny" / "fixed"
    build(folder, contents, Fixed(), subject, Building("float32", show_progress=False))
    tiny_settings = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
    return {**tiny_settings, "features_dir": str(tmp_path / "features"), "epochs": 1}


@pytest.mark.parametrize("how", ["init", "add", "concat"])
@pytest.mark.parametrize("model", ["BPR", "SASRec", "GRU4Rec", "BERT4Rec"])
def test_models_train_with_it_and_come_back(model, how, settings, tmp_path):
    wanted = {"feature": "fixed", "how": how}
    more = {"item_init": wanted, "output_dir": str(tmp_path / "run")}
    if model != "BPR":
        more.update(loss_type="CE", train_neg_sample_args=None, MAX_ITEM_LIST_LENGTH=10)
    result = run(model, "tiny", config_dict={**settings, **more})
    loaded = load_run(tmp_path / "run")
    assert set(loaded.model.state_dict()) == set(
        torch.load(tmp_path / "run" / "best.pt", weights_only=True)["state_dict"]
    )
    assert result["n_parameters"] == sum(p.numel() for p in loaded.model.parameters())
    if how != "init":
        table = loaded.model.item_embedding
        assert table.weight.grad_fn is not None  # a function of the feature
        ids = torch.arange(5)
        assert torch.equal(table(ids), table.weight[:5])


def test_a_resumed_run_is_the_same(settings, tmp_path):
    more = {"item_init": {"feature": "fixed", "how": "add"}, "epochs": 2}
    whole = run("BPR", "tiny", config_dict={**settings, **more, "output_dir": str(tmp_path / "a")})
    first = {**settings, **more, "epochs": 1, "output_dir": str(tmp_path / "b")}
    run("BPR", "tiny", config_dict=first)
    again = run(resume=tmp_path / "b", overrides=["--epochs=2"])
    assert again["test"] == whole["test"]


def test_a_feature_that_was_built_anew_is_another(settings, tmp_path):
    more = {"item_init": {"feature": "fixed", "how": "add"}, "output_dir": str(tmp_path / "a")}
    run("BPR", "tiny", config_dict={**settings, **more})
    load_run(tmp_path / "a")
    place = tmp_path / "features" / "tiny" / "fixed"
    rows = FeatureStore(place).rows["token"]
    subject = Subject("fixed", "text", "item", "tiny")
    contents = {token: str(i + 1) for i, token in enumerate(rows)}
    build(place, contents, Fixed(), subject, Building("float32", show_progress=False))
    for again in (lambda: load_run(tmp_path / "a"), lambda: run(resume=tmp_path / "a")):
        with pytest.raises(UserError, match="feature 'fixed' was built anew since this run"):
            again()


def test_a_trained_table_needs_no_feature(settings, tmp_path):
    """``init`` only decides where a table begins: a finished run has it, and a resumed one."""

    def given(name, how="init", epochs=1):
        item_init = {"feature": "fixed", "how": how}
        return {**settings, "item_init": item_init, "epochs": epochs, "output_dir": tmp_path / name}

    whole = run("BPR", "tiny", config_dict=given("whole", epochs=2))
    run("BPR", "tiny", config_dict=given("a"))
    run("BPR", "tiny", config_dict=given("added", "add"))
    kept = torch.load(tmp_path / "a" / "best.pt", weights_only=True)["state_dict"]
    (tmp_path / "features").rename(tmp_path / "gone")
    table = load_run(tmp_path / "a").model.item_embedding.weight
    assert torch.equal(table.cpu(), kept["item_embedding.weight"].cpu())
    assert run(resume=tmp_path / "a", overrides=["--epochs=2"])["test"] == whole["test"]
    with pytest.raises(UserError, match="there is no feature 'fixed'"):
        run("BPR", "tiny", config_dict=given("b"))
    with pytest.raises(UserError, match="there is no feature 'fixed'"):  # vectors are no weights
        load_run(tmp_path / "added")


def test_a_warm_start_is_not_undone(settings, tmp_path):
    rest = {k: v for k, v in settings.items() if k != "features_dir"}
    small = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
    small |= {"MAX_ITEM_LIST_LENGTH": 10, "train_neg_sample_args": None}
    run("DuoRec", "tiny", config_dict={**rest, **small, "output_dir": str(tmp_path / "duo")})
    trained = torch.load(tmp_path / "duo" / "best.pt", weights_only=True)["state_dict"]
    more = {"pretrained_path": str(tmp_path / "duo"), "top_k": 5, "calibrate_top_k": [5]}
    more["item_init"] = {"feature": "fixed", "how": "init"}
    given = {**settings, **small, **more, "output_dir": str(tmp_path / "ft")}
    run("FTRagRec", "tiny", config_dict=given)
    kept = torch.load(tmp_path / "ft" / "best.pt", weights_only=True)["state_dict"]
    name = "encoder.item_embedding.weight"
    mine = kept[name]
    theirs = trained.get(name, trained.get("item_embedding.weight"))
    assert torch.equal(mine, theirs)
    given["item_init"] = {"feature": "fixed", "how": "add"}
    with pytest.raises(UserError, match="FTRagRec takes its table of items from DuoRec"):
        run("FTRagRec", "tiny", config_dict={**given, "output_dir": str(tmp_path / "x")})


def model_of(n_items: int, size: int, name: str = "item_embedding") -> nn.Module:
    model = nn.Module()
    torch.manual_seed(0)
    setattr(model, name, nn.Embedding(n_items, size, padding_idx=0))
    return model


@pytest.fixture
def given(settings):
    config = Config("BPR", "tiny", None, settings)
    dataset = create_dataset(config)
    return config, dataset


def vectors_by_hand(dataset) -> torch.Tensor:
    """Return what the fixture stored, by internal id, in numpy: [N, 6]."""
    found = np.zeros((dataset.item_num, 6), dtype=np.float32)
    for i in range(3, dataset.item_num):
        found[i] = np.random.default_rng(i - 3).normal(size=6)
    return torch.from_numpy(found)


def test_add_and_concat_are_what_they_say(given):
    config, dataset = given
    x = torch.nn.functional.normalize(vectors_by_hand(dataset), dim=1)  # [N, 6]
    for how in ("add", "concat"):
        config["item_init"] = {"feature": "fixed", "how": how}
        model = with_item_init(model_of(dataset.item_num + 1, 4), config, dataset)
        table = model.item_embedding
        learned = table.learned  # [N + 1, 4]
        project = table.of_feature.project.weight  # [4, F]
        more = torch.cat([x, torch.zeros(1, 6)])  # a mask's row has no feature
        joined = more if how == "add" else torch.cat([learned, more], 1)
        wanted = joined @ project.T + (learned if how == "add" else 0)
        assert torch.allclose(table.weight, wanted, atol=1e-6)
        assert torch.allclose(table.weight[1:3], learned[1:3], atol=1e-6) or how == "concat"
        table.weight.sum().backward()
        assert learned.grad is not None and project.shape == (4, 6 if how == "add" else 10)


@pytest.mark.parametrize("how", ["add", "concat"])
def test_a_model_with_it_can_be_pickled_and_copied(how, given):
    config, dataset = given
    config["item_init"] = {"feature": "fixed", "how": how}
    model = with_item_init(model_of(dataset.item_num + 1, 4), config, dataset)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other.item_embedding.weight, model.item_embedding.weight)
        names = [name for name, _ in other.named_parameters()]
        assert names == [name for name, _ in model.named_parameters()] and len(names) == 2
        ids = torch.tensor([3, 5])
        other.item_embedding(ids).sum().backward()
        assert all(weight.grad is not None for weight in other.parameters())
        with torch.no_grad():
            next(other.parameters()).add_(1)
        assert not torch.equal(other.item_embedding.weight, model.item_embedding.weight)
        assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("size", [4, 9])
def test_init_starts_from_principal_components(given, size, monkeypatch):
    monkeypatch.setattr(item_init, "ROWS", 7)  # in parts
    config, dataset = given
    config["item_init"] = {"feature": "fixed"}
    plain = model_of(dataset.item_num, size).item_embedding.weight.detach()
    model = with_item_init(model_of(dataset.item_num, size), config, dataset)
    weight = model.item_embedding.weight.detach()
    assert torch.equal(weight[:3], plain[:3])  # without a feature: as they were
    x = vectors_by_hand(dataset)[3:].double()
    x = x - x.mean(0)
    values, axes = torch.linalg.eigh(x.T @ x)  # ascending
    kept = min(size, 6)
    basis = axes[:, -kept:].flip(1)  # [6, kept]
    wanted = x @ basis
    found = weight[3:, :kept].double()
    # each component by the sign of its axis' largest number, and all by one scale
    for column in range(kept):
        cosine = torch.nn.functional.cosine_similarity(found[:, column], wanted[:, column], dim=0)
        sign = basis[:, column][basis[:, column].abs().argmax()].sign()
        assert cosine == pytest.approx(float(sign), abs=1e-5)
    assert (weight[3:, kept:] == 0).all()
    assert found.norm() / wanted.norm() == pytest.approx(
        float(plain[3:].std() / wanted.float().std()), rel=1e-4
    )


def test_rows_of_zeros_have_no_feature():
    table = nn.Embedding(4, 2)
    before = table.weight.detach().clone()
    start_from(table, torch.tensor([[1.0, 2], [0, 0], [3, 1], [1, 1]]))
    assert torch.equal(table.weight[:2], before[:2])  # row 0 is padding, row 1 has none
    assert not torch.equal(table.weight[2:], before[2:])


def test_a_single_vector_has_no_components():
    table = nn.Embedding(4, 2)
    before = table.weight.detach().clone()
    start_from(table, torch.tensor([[0.0, 0], [0, 0], [3, 1], [0, 0]]))
    assert torch.equal(table.weight, before)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("title", "item_init takes a feature and how it is used, as item_init: {feature"),
        ({"how": "add"}, "item_init takes a feature"),
        ({"feature": "fixed", "hwo": "add"}, "item_init has no 'hwo'; did you mean 'how'"),
        ({"feature": "fixed", "how": "adds"}, "how takes init, add, concat, not 'adds'; did you"),
        ({"feature": "fixd"}, "there is no feature 'fixd' in .*; did you mean 'fixed'"),
    ],
)
def test_what_cannot_be_meant(wanted, sentence, given):
    config, dataset = given
    config["item_init"] = wanted
    with pytest.raises(UserError, match=sentence):
        with_item_init(model_of(dataset.item_num, 4), config, dataset)


def test_models_without_a_table_and_features_of_others(given, tmp_path):
    config, dataset = given
    config["item_init"] = {"feature": "fixed", "how": "add"}
    with pytest.raises(UserError, match="Module has no table of .* items"):
        with_item_init(model_of(dataset.item_num, 4, "table"), config, dataset)
    config["features_dir"] = str(tmp_path / "other")
    subject = Subject("fixed", "text", "user", "tiny")
    place = tmp_path / "other" / "tiny" / "fixed"
    build(place, {"x": "1"}, Fixed(), subject, Building(show_progress=False))
    with pytest.raises(UserError, match="is of each user, and one of each item is meant"):
        with_item_init(model_of(dataset.item_num, 4), config, dataset)
    subject = Subject("fixed", "text", "item", "elsewhere")
    build(place, {"x": "1"}, Fixed(), subject, Building(show_progress=False))
    with pytest.raises(UserError, match="is of dataset 'elsewhere', whose tokens may mean others"):
        with_item_init(model_of(dataset.item_num, 4), config, dataset)
    config["item_init"] = {"feature": str(place), "how": "add"}  # by its folder it is meant
    with pytest.raises(UserError, match="has a vector for none of .* it is of dataset 'elsewhere'"):
        with_item_init(model_of(dataset.item_num, 4), config, dataset)


def test_without_the_setting_nothing_changes():
    model = model_of(5, 4)
    assert with_item_init(model, {"item_init": None}, SimpleNamespace()) is model
