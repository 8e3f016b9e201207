"""Warm starts: what is taken, what is refused, and that a foreign file runs nothing."""

from __future__ import annotations

import collections
import enum
import json
import pickle

import numpy as np
import pytest
import torch

from recbole_ext.models.warm_start import OURS, load_warm_start
from recbole_ext.modules.transformer import SASEncoder
from recbole_ext.trainer.checkpoint import FORMAT
from recbole_ext.types import UserError

SIZES = {"hidden_size": 8, "n_layers": 2, "inner_size": 16}
SETTINGS = {**SIZES, "n_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def encoder(seed: int = 0, **options) -> SASEncoder:
    torch.manual_seed(seed)
    return SASEncoder(
        **{"n_items": 12, "hidden_size": 8, "inner_size": 16, "max_length": 5, **options}
    )


def ours(source: SASEncoder, **changes) -> dict:
    state = {f"encoder.{name}": value for name, value in source.state_dict().items()}
    return {"format": "recbole_ext/1", "dataset": "tiny", "vocabulary": {"items": "hash"},
            "settings": dict(SETTINGS), "state_dict": state, **changes}  # fmt: skip


class ModelType(enum.Enum):
    """Stands for RecBole's enum inside a pickled Config."""

    SEQUENTIAL = 2


class RecBoleConfig:
    """Stands for RecBole 0.2.1's Config: an object with a state of its own."""

    def __init__(self) -> None:
        self.final_config_dict = {"model": "DuoRec", "type": ModelType.SEQUENTIAL, "sizes": {1, 2}}
        self.device = torch.device("cpu")

    def __setstate__(self, state) -> None:
        raise AssertionError("the pickled object was rebuilt")


def original(source: SASEncoder) -> dict:
    """Return what RecBole 0.2.1's trainer saved for the original DuoRec."""
    return {
        "config": RecBoleConfig(),
        "epoch": 7,
        "best_valid_score": np.float64(0.04),
        "state_dict": collections.OrderedDict(source.state_dict()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.001}]},
    }


def same(a: SASEncoder, b: SASEncoder) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def write_result(folder, **entries) -> None:
    (folder / "result.json").write_text(json.dumps({"dataset": "tiny", **entries}))


def test_a_run_folder_and_its_best_pt_are_taken(tmp_path):
    source = encoder(1)
    torch.save(ours(source), tmp_path / "best.pt")
    write_result(tmp_path, dataset_fingerprint="data")
    for path in (tmp_path, tmp_path / "best.pt"):
        target = encoder(2)
        report = load_warm_start(target, path, "hash", SETTINGS, "data")
        assert same(source, target)
        assert sorted(report.matched) == sorted(f"encoder.{n}" for n in source.state_dict())
        assert report.unused == [] and report.notes == []


def test_the_format_is_the_one_that_the_trainer_writes():
    assert OURS == FORMAT


def test_other_interactions_or_another_order_of_them_is_an_error(tmp_path):
    """Equal items and split settings do not say which of two items of one day is the last."""
    torch.save(ours(encoder(1)), tmp_path / "best.pt")
    write_result(tmp_path, dataset_fingerprint="theirs")
    for path in (tmp_path, tmp_path / "best.pt"):
        target = encoder(2)
        with pytest.raises(UserError, match="trained on other interactions.*result.json"):
            load_warm_start(target, path, "hash", SETTINGS, "ours")
        assert same(target, encoder(2))
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match="result.json is damaged"):
        load_warm_start(encoder(2), tmp_path, "hash", SETTINGS, "ours")


@pytest.mark.parametrize("known", ["neither", "file", "run"])
def test_interactions_that_cannot_be_compared_are_noted(tmp_path, known):
    torch.save(ours(encoder(1)), tmp_path / "best.pt")
    if known == "file":
        write_result(tmp_path, dataset_fingerprint="theirs")
    report = load_warm_start(
        encoder(2), tmp_path, "hash", SETTINGS, "ours" if known == "run" else None
    )
    assert ["in the same order is unproven" in note for note in report.notes] == [True]


def test_the_states_are_compared_with_those_of_the_encoder_that_the_file_describes(tmp_path):
    """Equal weights are not yet equal states: here the encoder is not what the settings say."""
    trained = encoder(1)
    with torch.no_grad():  # the initial ones are so small that attention is all but uniform
        for parameter in trained.parameters():
            parameter.mul_(10.0)
    torch.save(ours(trained), tmp_path / "best.pt")
    load_warm_start(encoder(2), tmp_path, "hash", SETTINGS)
    for options in ({"n_heads": 4}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}):
        with pytest.raises(AssertionError, match="other states"):
            load_warm_start(encoder(2, **options), tmp_path, "hash", SETTINGS)


def test_comparing_states_changes_neither_the_mode_nor_the_random_numbers(tmp_path):
    torch.save(ours(encoder(1)), tmp_path / "best.pt")
    target = encoder(2)
    before = torch.get_rng_state()
    load_warm_start(target, tmp_path, "hash", SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in target.modules())


def test_settings_that_are_too_few_to_compare_states_are_noted(tmp_path):
    few = {key: value for key, value in SETTINGS.items() if key != "inner_size"}
    torch.save(ours(encoder(1), settings=few), tmp_path / "best.pt")
    report = load_warm_start(encoder(2), tmp_path, "hash", SETTINGS)
    assert any("does not say inner_size" in note for note in report.notes)


EVAL = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ({"eval_args": {**EVAL, "split": {"LS": "test_only"}}},
         "eval_args.split: {'LS': 'test_only'}.*eval_args.split: {'LS': 'valid_and_test'}"),
        ({"eval_args": {**EVAL, "order": "RO"}}, "eval_args.order: RO.*eval_args.order: TO"),
        ({"eval_args": {**EVAL, "group_by": None}}, "eval_args.group_by: None"),
        ({"user_inter_num_interval": "[0,inf)"}, "user_inter_num_interval: \\[0,inf\\)"),
        ({"item_inter_num_interval": "[0,inf)"}, "item_inter_num_interval"),
        ({"val_interval": {"timestamp": "[0,5)"}}, "val_interval: .*val_interval: None"),
        ({"rm_dup_inter": "first"}, "rm_dup_inter: first"),
        ({"TIME_FIELD": "day"}, "TIME_FIELD: day.*TIME_FIELD: timestamp"),
        ({"benchmark_filename": ["a", "b", "c"]}, "benchmark_filename: .*: None"),
    ],
)  # fmt: skip
def test_another_split_or_filter_is_an_error(tmp_path, theirs, sentence):
    """What trained on other rows may have seen this run's validation targets."""
    filters = {"user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[5,inf)"}
    run = {**SETTINGS, "eval_args": EVAL, **filters, "val_interval": None, "rm_dup_inter": None}
    run.update(TIME_FIELD="timestamp", benchmark_filename=None)
    same_rows = {**run, "eval_args": {**EVAL, "mode": "uni100"}}  # says nothing about training
    torch.save(ours(encoder(1), settings=same_rows), tmp_path / "best.pt")
    load_warm_start(encoder(2), tmp_path, "hash", run)
    torch.save(ours(encoder(1), settings={**run, **theirs}), tmp_path / "best.pt")
    with pytest.raises(UserError, match=f"trained with {sentence}"):
        load_warm_start(encoder(2), tmp_path, "hash", run)


def test_another_seed_draws_another_random_split(tmp_path):
    run = {**SETTINGS, "eval_args": {**EVAL, "order": "RO"}, "seed": 7}
    torch.save(ours(encoder(1), settings=run), tmp_path / "best.pt")
    load_warm_start(encoder(2), tmp_path, "hash", run)
    with pytest.raises(UserError, match="trained with seed: 7, and this run has seed: 8"):
        load_warm_start(encoder(2), tmp_path, "hash", {**run, "seed": 8})
    ordered = {**run, "eval_args": EVAL}
    torch.save(ours(encoder(1), settings=ordered), tmp_path / "best.pt")
    load_warm_start(encoder(2), tmp_path, "hash", {**ordered, "seed": 8})


def test_the_report_lists_what_has_no_place(tmp_path):
    payload = ours(encoder(1))
    payload["state_dict"]["projection.weight"] = torch.zeros(2)
    torch.save(payload, tmp_path / "best.pt")
    report = load_warm_start(encoder(), tmp_path, "hash", SETTINGS)
    assert report.unused == ["projection.weight"]
    text = str(report)
    assert "unused   projection.weight" in text and "matched  encoder.LayerNorm.bias" in text


def test_the_originals_checkpoint_is_read_without_building_its_objects(tmp_path):
    source, target = encoder(1), encoder(2)
    torch.save(original(source), tmp_path / "DuoRec.pth")
    report = load_warm_start(target, tmp_path / "DuoRec.pth", "hash", SETTINGS)
    assert same(source, target)
    assert any("does not say which item" in note for note in report.notes)
    unproven = next(note for note in report.notes if "n_heads" in note)
    assert "n_heads 2, hidden_act gelu, layer_norm_eps 1e-12" in unproven


def test_the_originals_states_are_the_same(tmp_path):
    source, target = encoder(1).eval(), encoder(2).eval()
    torch.save(original(source), tmp_path / "DuoRec.pth", _use_new_zipfile_serialization=False)
    load_warm_start(target, tmp_path / "DuoRec.pth", "hash", SETTINGS)
    item_seq, length = torch.randint(1, 12, (4, 5)), torch.tensor([5, 5, 5, 5])
    assert torch.equal(source(item_seq, length), target(item_seq, length))


class Malicious:
    """On unpickling, asks for a file to be made."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_foreign_file_runs_nothing(tmp_path):
    trap = tmp_path / "trap"
    payload = original(encoder(1))
    payload["config"] = Malicious(trap)
    torch.save(payload, tmp_path / "evil.pth")
    load_warm_start(encoder(2), tmp_path / "evil.pth", "hash", SETTINGS)
    assert not trap.exists()
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"state_dict": Malicious(trap)}))
    with pytest.raises(UserError, match="no checkpoint"):
        load_warm_start(encoder(2), tmp_path / "plain.pkl", "hash", SETTINGS)
    assert not trap.exists()
    with open(tmp_path / "plain.pkl", "rb") as stream:
        pickle.load(stream)["state_dict"].close()
    assert trap.exists()  # the trap itself works


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vocabulary": {"items": "other"}}, "was trained on other items \\(dataset 'tiny'\\)"),
        ({"vocabulary": {}}, "was trained on other items"),
        ({"settings": {**SETTINGS, "n_heads": 4}}, "trained with n_heads: 4, .* set n_heads to 4"),
        ({"settings": {**SETTINGS, "hidden_act": "relu"}}, "hidden_act: relu"),
        ({"state_dict": {}}, "no checkpoint \\(it has no state_dict"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, sentence):
    torch.save(ours(encoder(1), **change), tmp_path / "best.pt")
    target = encoder(2)
    with pytest.raises(UserError, match=sentence):
        load_warm_start(target, tmp_path, "hash", SETTINGS)
    assert same(target, encoder(2))  # and nothing was loaded by half


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_items": 13}, "item_embedding.weight of shape \\(13, 8\\) .* \\(12, 8\\): items"),
        ({"max_length": 6}, "position_embedding.weight .* MAX_ITEM_LIST_LENGTH"),
        ({"inner_size": 32}, "inner_size differ"),
        ({"n_layers": 3}, "has encoder.trm_encoder.layer.2.*and 11 more.*set n_layers"),
        ({"n_layers": 1}, "lacks encoder.trm_encoder.layer.1.*n_layers"),
    ],
)
def test_another_architecture_is_named(tmp_path, options, sentence):
    torch.save(ours(encoder(1, **options)), tmp_path / "best.pt")
    with pytest.raises(UserError, match=sentence):
        load_warm_start(encoder(2), tmp_path, "hash", SETTINGS)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="gone.pt does not exist"):
        load_warm_start(encoder(), tmp_path / "gone.pt", "hash", SETTINGS)
    with pytest.raises(UserError, match="has no best.pt"):
        load_warm_start(encoder(), tmp_path, "hash", SETTINGS)
    torch.save(ours(encoder(1)), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for name, content in {
        "short": whole[: len(whole) // 2],
        "text": b"hello\n",
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is damaged or no checkpoint"):
            load_warm_start(encoder(), tmp_path / name, "hash", SETTINGS)


def test_weights_that_did_not_arrive_are_noticed(tmp_path, monkeypatch):
    torch.save(ours(encoder(1)), tmp_path / "best.pt")
    target = encoder(2)
    monkeypatch.setattr(target, "load_state_dict", lambda state: None)
    with pytest.raises(AssertionError, match="differs from what was loaded"):
        load_warm_start(target, tmp_path, "hash", SETTINGS)
