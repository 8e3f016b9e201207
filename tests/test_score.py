"""``recbole-ext score``: newer data, whose numbers of news are others, by a model as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_ext.cli import main
from recbole_ext.feature_commands.vectors import exchange
from recbole_ext.quick_start import load_run, run
from recbole_ext.score import by_token
from tests.models.news_contract import SMALL as SETTINGS
from tests.models.test_kgnewsrec import SMALL

NEW = {"N100": "N7", "N101": "N6"}
"""New news -> the one of the test part that it is like in its entities; N6 has none."""


@pytest.fixture(scope="module")
def today(news_data, tmp_path_factory) -> Path:
    """The planted data a day later: new news stand first, so that all have other numbers."""
    folder = tmp_path_factory.mktemp("later")
    place = folder / "today"
    place.mkdir()
    for path in (Path(news_data("graph")[0]) / "tiny").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        if path.suffix == ".item":
            row = {line.split("\t")[0]: line.partition("\t")[2] for line in lines}
            lines[1:1] = [f"{new}\t{row[old]}" for new, old in NEW.items()]
            lines[1:1] = ["N102\tnewcategory\tQ99\n"]  # an entity that nobody knows
        if path.name == "tiny.test.inter":
            lines[1:1] = [f"new@dev\tU5@train\t{n}\t0\t2000\n" for n in (*NEW, *NEW.values())]
        (place / path.name.replace("tiny", "today")).write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def trained(news_data, tmp_path_factory):
    """Settings -> run folder."""

    def train(**more):
        folder = tmp_path_factory.mktemp("run") / "run"
        given = {
            **SETTINGS,
            **SMALL,
            **{"data_path": news_data("graph")[0], "text_feature": None, "epochs": 2},
            **{"train_batch_size": 64, "use_gpu": False, "show_progress": False},
            **{"state": "WARNING", "output_dir": str(folder), **more},
        }
        run("KGNewsRec", "tiny", config_dict=given)
        return folder

    return train


@pytest.mark.parametrize("use_id", [False, True])
def test_what_was_known_scores_as_before_and_new_news_by_their_entities(
    trained, today, tmp_path, capsys, use_id
):
    folder = trained(use_id=use_id)
    out, vectors = tmp_path / "scores.tsv", tmp_path / "news.npy"
    command = ["score", f"--run={folder}", "--dataset=today", f"--data_path={today}"]
    assert main([*command, f"--out={out}", f"--vectors={vectors}"]) == 0
    assert "news: " in capsys.readouterr().out
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert rows[0] == ["impression_id", "hist_id", "item_id", "score"]
    found = {(i, news): float(score) for i, _, news, score in rows[1:]}
    assert len(found) == len(rows) - 1 == 4 + 30 * 6 - 4

    before = load_run(folder)
    for batch, *_ in before.test_data:
        with torch.no_grad():
            scores = before.model.predict(batch)
        names = [before.dataset.id2token(key, batch[key]) for key in ("impression_id", "item_id")]
        for i, news, score in zip(*names, scores.tolist(), strict=True):
            assert found[i, news] == pytest.approx(score, rel=1e-4)
    for new, old in NEW.items():
        assert found["new@dev", new] == pytest.approx(found["new@dev", old], rel=1e-5)
    assert found["new@dev", "N100"] != pytest.approx(found["new@dev", "N101"], rel=1e-3)

    written = exchange.read_listed(vectors, vectors.with_suffix(".json"))
    assert len(written) == 83 and np.isfinite(np.stack([*written.values()])).all()
    np.testing.assert_allclose(written["N100"], written["N7"], rtol=1e-5)
    ids = before.dataset.token2id("item_id", ["N7", "N8"])
    with torch.no_grad():
        known = before.model.all_news()[ids].numpy()
    np.testing.assert_allclose([written["N7"], written["N8"]], known, rtol=1e-4, atol=1e-6)


def test_rows_are_found_by_token():
    values = torch.tensor([[0.0, 0], [1, 2], [3, 4]])
    found = by_token(values, ["[PAD]", "a", "b"], ["[PAD]", "new", "b", "a"])
    assert found.tolist() == [[0, 0], [0, 0], [3, 4], [1, 2]]
    seen = by_token(torch.tensor([False, True]), ["[PAD]", "a"], ["[PAD]", "a", "c"])
    assert seen.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--run=nowhere", "--dataset=today", "--out=x"], "nowhere holds no run"),
        (["--run=x", "--dataset=today", "--out="], "--out takes a file"),
        (["--run=x", "--dataset=t", "--out=x", "--vectors=v.txt"], "--vectors takes a file that"),
        (["--run=x", "--dataset=t", "--out=no/such/x"], "--out: there is no folder no/such; make"),
        (["--run=x", "--dataset=t", "--out=x", "--part=tset"], "did you mean 'test'?"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(capsys, more, sentence):
    assert main(["score", *more]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_of_another_model_is_refused(tiny_settings, tmp_path, capsys):
    folder = tmp_path / "bpr"
    settings = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
    run("Pop", "tiny", config_dict={**settings, "epochs": 1, "output_dir": str(folder)})
    assert main(["score", f"--run={folder}", "--dataset=tiny", "--out=x"]) == 2
    assert "score takes models of news" in capsys.readouterr().err


def test_a_model_without_ids_needs_its_own_data_no_more(news_data, today, tmp_path):
    data, vectors = news_data("graph")
    shutil.copytree(Path(data) / "tiny", tmp_path / "data" / "tiny")
    given = {**SETTINGS, "data_path": str(tmp_path / "data"), "text_feature": vectors}
    given |= {"epochs": 1, "use_gpu": False, "show_progress": False, "state": "WARNING"}
    folder, out = tmp_path / "run", tmp_path / "today.tsv"
    run("NRMSDocVec", "tiny", config_dict={**given, "output_dir": str(folder)})
    shutil.rmtree(tmp_path / "data")
    command = ["score", f"--run={folder}", "--dataset=today", f"--data_path={today}"]
    assert main([*command, f"--out={out}"]) == 0
    assert len(out.read_text().splitlines()) == 1 + 4 + 30 * 6 - 4
