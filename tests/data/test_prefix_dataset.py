"""PrefixDataset against RecBole's SequentialDataset; row ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset

from recbole_ext.config import Config as ExtConfig
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.prefix_dataset import ROW_ID, PrefixDataset, prefix_windows
from recbole_ext.data.rows import histories_of
from recbole_ext.modules.histories import Histories

HEADER = "user_id:token item_id:token timestamp:float rating:float tags:token_seq parts:float_seq"


@pytest.fixture
def rich(tmp_path):
    """Data set with all kinds of columns, ties in time, users with one interaction and with 13."""
    rng = np.random.default_rng(3)
    lines = ["\t".join(HEADER.split())]
    for user in range(12):
        for _ in range(1 + user):
            tags = " ".join(f"t{t}" for t in rng.integers(5, size=rng.integers(1, 4)))
            parts = " ".join(f"{x:.2f}" for x in rng.random(rng.integers(1, 3)))
            row = (f"u{user}", f"i{rng.integers(9)}", rng.integers(6), f"{rng.random():.3f}")
            lines.append("\t".join(map(str, (*row, tags, parts))))
    folder = tmp_path / "rich"
    folder.mkdir()
    (folder / "rich.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def make(cls, data_path=None, dataset="ml-100k", **settings):
    config = Config(
        "SASRec",
        dataset,
        config_dict={
            **({"data_path": str(data_path)} if data_path else {}),
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": 5,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "mode": "full",
                "group_by": "user",
            },
            "use_gpu": False,
            **settings,
        },
    )
    return cls(config)


def assert_same_rows(ours, theirs):
    """Every field of RecBole's, in its order, with equal content and type; one field more."""
    assert [f for f in ours.inter_feat if f != ROW_ID] == list(theirs.inter_feat)
    for field in theirs.inter_feat:
        found, wanted = ours.inter_feat[field], theirs.inter_feat[field]
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), field
        assert ours.field2type[field] == theirs.field2type[field]
        assert ours.field2seqlen[field] == theirs.field2seqlen[field]
        assert ours.field2source[field] == theirs.field2source[field]


ALL_COLUMNS = {"load_col": {"inter": [part.split(":")[0] for part in HEADER.split()]}}
ML_COLUMNS = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}


@pytest.mark.parametrize("length", [1, 5, 50])
def test_all_kinds_of_columns(rich, length):
    more = {**ALL_COLUMNS, "MAX_ITEM_LIST_LENGTH": length}
    ours = make(PrefixDataset, rich, "rich", **more).build()
    theirs = make(SequentialDataset, rich, "rich", **more).build()
    for own, their in zip(ours, theirs, strict=True):
        assert_same_rows(own, their)


@pytest.mark.parametrize("model", ["DuoRec", "FTRagRec"])
def test_our_models_carry_the_histories_that_they_read(rich, model):
    """A list of L numbers for each row and column, that nobody reads, is most of a dataset."""
    settings = {"data_path": str(rich), "MAX_ITEM_LIST_LENGTH": 5, "use_gpu": False, **ALL_COLUMNS}
    config = ExtConfig(model, "rich", config_dict=settings)
    ours, theirs = PrefixDataset(config).build(), SequentialDataset(config).build()
    unread = {f"{field}_list" for field in ("timestamp", "rating", "tags", "parts")}
    for own, their in zip(ours, theirs, strict=True):
        fields = list(their.inter_feat)
        assert unread < set(fields)
        assert [f for f in own.inter_feat if f != ROW_ID] == [f for f in fields if f not in unread]
        for field in set(fields) - unread:
            assert torch.equal(own.inter_feat[field], their.inter_feat[field]), field
        assert own.field2type.keys() - {ROW_ID} == their.field2type.keys() - unread


def test_a_model_names_further_histories_by_their_settings(rich, monkeypatch):
    settings = {"data_path": str(rich), "use_gpu": False, **ALL_COLUMNS}
    config = ExtConfig("DuoRec", "rich", config_dict=settings)
    monkeypatch.setattr(config.model_class, "history_fields", ("TIME_FIELD",))
    (train, _, _) = PrefixDataset(config).build()
    lists = {field for field in train.inter_feat if field.endswith("_list")}
    assert lists == {"item_id_list", "timestamp_list"}


@pytest.mark.parametrize(
    ("model", "more"), [("DuoRec", {}), ("DuoRec", {"train_on": "causal"}), ("FTRagRec", {})]
)
def test_models_and_loaders_keep_offsets(tiny_settings, model, more):
    """What needs histories takes those of a batch, or the offsets: a table [R, L] is gigabytes."""
    config = ExtConfig(model, "tiny", config_dict={**tiny_settings, **more, "mask_history": True})
    loaders = create_loaders(config, create_dataset(config))
    net = config.model_class(config, loaders[0].dataset)
    for loader in loaders:
        assert len(list(loader)) == len(loader)
        assert isinstance(histories_of(loader.dataset.inter_feat, "item_id_list"), Histories)
    n_rows = len(loaders[0].dataset)
    assert not any(buffer.dim() > 1 and len(buffer) == n_rows for buffer in net.buffers())


def test_numerical_features(rich):
    """RecBole gives float columns named here two values, the index and the number."""
    more = {**ALL_COLUMNS, "numerical_features": ["rating"]}
    ours = make(PrefixDataset, rich, "rich", **more).build()
    theirs = make(SequentialDataset, rich, "rich", **more).build()
    assert ours[0].inter_feat["rating_list"].shape[-1] == 2
    for own, their in zip(ours, theirs, strict=True):
        assert_same_rows(own, their)


def test_interactions_without_times_are_refused_as_by_recbole(rich):
    said = []
    for cls in (PrefixDataset, SequentialDataset):
        dataset = make(cls, rich, "rich", load_col={"inter": ["user_id", "item_id"]})
        with pytest.raises(ValueError, match="timestamp.* is not exist") as error:
            dataset.build()
        said.append(str(error.value))
    assert said[0] == said[1]


def test_ml_100k_rows_are_recboles():
    ours, theirs = (
        make(cls, **ML_COLUMNS, MAX_ITEM_LIST_LENGTH=50).build()
        for cls in (PrefixDataset, SequentialDataset)
    )
    for own, their in zip(ours, theirs, strict=True):
        assert_same_rows(own, their)


def test_row_ids_number_the_training_rows(rich):
    train, valid, test = make(PrefixDataset, rich, "rich", **ALL_COLUMNS).build()
    assert train.inter_feat[ROW_ID].tolist() == list(range(len(train)))
    assert train.inter_feat[ROW_ID].dtype == torch.int64
    for split in (valid, test):
        assert set(split.inter_feat[ROW_ID].tolist()) == {-1}


def naive_windows(users, max_length):
    """Start and target of each prefix, by a loop over all pairs."""
    found = []
    for i in range(len(users)):
        begin = min(j for j in range(len(users)) if users[j] == users[i])
        if begin < i:
            found.append((max(begin, i - max_length), i))
    return found


@pytest.mark.parametrize("max_length", [1, 3, 20])
def test_prefix_windows(max_length):
    users = np.repeat([4, 2, 9, 1], [5, 1, 8, 2])
    start, target = prefix_windows(users, max_length)
    assert list(zip(start.tolist(), target.tolist(), strict=True)) == naive_windows(
        users, max_length
    )


@pytest.mark.slow
@pytest.mark.data
def test_ml_1m_is_built_in_little_memory(shared_data):
    import resource

    columns = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    dataset = make(PrefixDataset, shared_data, "ml-1m", MAX_ITEM_LIST_LENGTH=50, **columns)
    train, valid, test = dataset.build()
    assert len(train) == 999_611 - 3 * 6_040 and len(valid) == len(test) == 6_040
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20  # KiB
