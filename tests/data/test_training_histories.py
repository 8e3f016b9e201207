"""Training histories against the file; a feature that may leak says so when a run opens it."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.data.features import load_feature
from recbole_ext.data.training_histories import training_histories
from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.manifest import MAY_LEAK, Source
from recbole_ext.types import UserError

LEAVE_ONE_OUT = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}


def split_of(tiny_settings, model="BPR", **more):
    settings = {**tiny_settings, **LEAVE_ONE_OUT, **more}
    if model == "BPR":
        settings |= {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    return create_dataset(Config(model, "tiny", config_dict=settings)).build()[0]


def test_it_is_all_but_the_last_two_events_of_each_user(tiny_settings):
    found = training_histories(split_of(tiny_settings))
    path = f"{tiny_settings['data_path']}/tiny/tiny.inter"
    table = pd.read_csv(path, sep="\t", dtype={0: str, 1: str})
    table.columns = [column.split(":")[0] for column in table]
    table = table.sort_values("timestamp", kind="stable")
    wanted = {
        user: list(zip(rows["item_id"], map(float, rows["timestamp"]), strict=True))[:-2]
        for user, rows in table.groupby("user_id")
    }
    assert len(wanted) == 30 and found == wanted


def test_what_has_no_events_or_no_time_is_one_sentence(tiny_settings):
    with pytest.raises(UserError, match="rows of a sequential model are prefixes; build .* BPR"):
        training_histories(split_of(tiny_settings, "SASRec"))
    columns = {"load_col": {"inter": ["user_id", "item_id"]}}
    ratio = {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO", "mode": "full"}}
    with pytest.raises(UserError, match="the dataset has no time .timestamp.; a cut-off needs one"):
        training_histories(split_of(tiny_settings, **columns, **ratio))


class Encoder:
    source = Source("fake", "1")

    def encode(self, contents):
        return Encoded(np.ones((len(contents), 2)))


@pytest.mark.parametrize("notes", [(MAY_LEAK,), ("another note",)])
def test_a_feature_that_may_leak_says_so_to_every_run(notes, tmp_path, caplog):
    subject = Subject("taste", "text", "user", "tiny", notes=notes)
    texts = {"u1": "likes"}
    build(tmp_path / "tiny" / "taste", texts, Encoder(), subject, Building(show_progress=False))
    dataset = SimpleNamespace(uid_field="u", field2id_token={"u": np.array(["[PAD]", "u1"])})
    caplog.set_level(logging.WARNING)
    aligned = load_feature({"features_dir": tmp_path, "dataset": "tiny"}, dataset, "taste", "user")
    assert aligned.cutoffs is None
    assert ("feature taste may leak" in caplog.text) == (notes == (MAY_LEAK,))
