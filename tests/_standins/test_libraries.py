"""B3 to B9: what newer numpy, torch, scipy and pandas no longer do for RecBole."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from compat_help import INTER, SIX, built, config, dataset, write


def test_b3_recbole_finds_the_names_that_numpy_dropped(tmp_path: Path) -> None:
    write(tmp_path, inter=[INTER, *SIX])
    config(tmp_path)  # uses np.float_ and np.unicode_
    from recbole.data.interaction import Interaction
    from recbole.evaluator.metrics import NDCG

    Interaction({"score": [1.5, 2.5]})  # uses np.float
    hit = np.array([[False, True]])
    ndcg = NDCG(config(tmp_path, topk=[2])).metric_info(hit, np.array([1]))
    assert ndcg[0, 1] == pytest.approx(1 / np.log2(3))


def test_b4_recbole_reads_its_checkpoint_and_nobody_else_does_unasked(tmp_path: Path) -> None:
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    write(tmp_path, inter=[INTER, *SIX])
    settings = config(tmp_path, embedding_size=4)
    train, _, _ = data_preparation(settings, create_dataset(settings))
    model = BPR(settings, train.dataset)
    trainer = Trainer(settings, model)
    trainer._save_checkpoint(0, verbose=False)
    saved = model.user_embedding.weight.detach().clone()
    torch.nn.init.zeros_(model.user_embedding.weight)
    trainer.resume_checkpoint(trainer.saved_model_file)
    assert torch.equal(model.user_embedding.weight, saved)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(trainer.saved_model_file)


def test_b5_lightgcn_builds_its_normalised_graph(tmp_path: Path) -> None:
    from recbole.model.general_recommender import LightGCN

    write(tmp_path, inter=[INTER, *SIX])
    settings = config(tmp_path, "LightGCN", eval_args={"split": {"RS": [1, 0, 0]}})
    data = dataset(tmp_path, "LightGCN", eval_args={"split": {"RS": [1, 0, 0]}}).build()[0]
    got = LightGCN(settings, data).norm_adj_matrix.to_dense().numpy()

    users, items = data.num("user_id"), data.num("item_id")
    adjacency = np.zeros((users + items, users + items))
    for line in SIX:
        user, item, _ = line.split("\t")
        u, i = data.token2id("user_id", user), users + data.token2id("item_id", item)
        adjacency[u, i] = adjacency[i, u] = 1
    scale = 1 / np.sqrt(adjacency.sum(1) + 1e-7)  # RecBole adds 1e-7
    np.testing.assert_allclose(got, scale[:, None] * adjacency * scale[None, :], rtol=1e-5)


def test_b6_token_sequences_keep_their_tokens_row_by_row(tmp_path: Path) -> None:
    items = ["item_id:token\ttitle:token_seq", "i1\ta b", "i2\tb", "i3\tc a b", "i4\td"]
    write(tmp_path, inter=[INTER, *SIX], item=items)
    data = built(tmp_path)
    titles = {
        data.id2token("item_id", number): " ".join(data.id2token("title", row[row > 0]))
        for number, row in enumerate(data.item_feat["title"])
    }
    assert titles == {"[PAD]": "", "i1": "a b", "i2": "b", "i3": "c a b", "i4": "d"}


def test_b6_float_sequences_are_normalised_over_all_rows(tmp_path: Path) -> None:
    items = ["item_id:token\tv:float_seq", "i1\t1 2", "i2\t3", "i3\t5 1 1", "i4\t4"]
    write(tmp_path, inter=[INTER, *SIX], item=items)
    data = built(tmp_path, normalize_field=["v"])
    rows = data.item_feat["v"][data.token2id("item_id", np.array(["i1", "i2", "i3", "i4"]))]
    expected = [[0, 0.25, 0], [0.5, 0, 0], [1, 0, 0], [0.75, 0, 0]]  # (x - 1) / (5 - 1), padded
    np.testing.assert_allclose(rows[:, :3].numpy(), expected)


@pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="pandas < 3 maps over the rows itself"
)
def test_b6_leaves_everyone_elses_agg_alone() -> None:
    import recbole.data  # noqa: F401 - the repair comes with it

    assert pd.Series([[1, 2], [3]]).agg(len) == 2
    assert pd.Series([1, 2, 3]).agg("sum") == 6


def test_b7_missing_values_are_filled_as_documented(tmp_path: Path) -> None:
    """Tokens by 0, floats by the mean of what is there; also in the row of [PAD]."""
    header = "item_id:token\tprice:float\tbrand:token"
    items = [header, "i1\t1.0\tx", "i2\t\ty", "i3\t4.0\t", "i4\t\t"]
    write(tmp_path, inter=[INTER, *SIX], item=items)
    data = built(tmp_path)
    ids = data.token2id("item_id", np.array(["[PAD]", "i1", "i2", "i3", "i4"]))
    assert data.item_feat["price"][ids].tolist() == [2.5, 1.0, 2.5, 4.0, 2.5]
    assert list(data.id2token("brand", data.item_feat["brand"][ids])) == [
        *("[PAD]", "x", "y", "[PAD]", "[PAD]")
    ]


def test_b8_an_empty_cell_of_a_sequence_column_is_an_empty_sequence(tmp_path: Path) -> None:
    items = [
        "item_id:token\ttitle:token_seq\tv:float_seq",
        "i1\ta b\t1.5",
        "i2\t\t",
        "i3\tc\t",
        "i4\t\t2",
    ]
    write(tmp_path, inter=[INTER, *SIX], item=items)
    data = built(tmp_path)
    ids = data.token2id("item_id", np.array(["i1", "i2", "i3", "i4"]))
    assert (data.item_feat["title"][ids] > 0).sum(1).tolist() == [2, 0, 1, 0]
    assert data.item_feat["v"][ids].sum(1).tolist() == [1.5, 0, 0, 2]


def test_b9_b15_a_run_gives_its_user_no_warning(tmp_path: Path) -> None:
    """Two models, item columns, a checkpoint; in an interpreter without pytest's own filters."""
    items = [
        "item_id:token\tprice:float\ttitle:token_seq",
        "i1\t1.0\ta",
        "i2\t\t",
        "i3\t4.0\tb",
        "i4\t1\tc",
    ]
    items += [f"i{number}\t2.0\tc" for number in range(5, 10)]
    rows = [f"u{user}\ti{1 + (user * n + n) % 9}\t{n}" for user in range(9) for n in range(6)]
    write(tmp_path, inter=[INTER, *rows], item=items)
    code = f"""
        import sys, pathlib
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import compat_help, recbole.trainer, recbole.data
        import recbole.model.general_recommender as models
        for name in ("BPR", "LightGCN"):
            config = compat_help.config(pathlib.Path({str(tmp_path)!r}), name, state="ERROR")
            data = recbole.data.create_dataset(config)
            train, valid, test = recbole.data.data_preparation(config, data)
            trainer = recbole.trainer.Trainer(config, getattr(models, name)(config, train.dataset))
            trainer.fit(train, valid, verbose=False)
            trainer.evaluate(test)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
