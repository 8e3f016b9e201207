"""The pipeline: what its steps leave, what is found again, what a broken-off one goes on with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from two_stage_help import LEAVE_ONE_OUT, SIZES

from recbole_ext.cli import main
from recbole_ext.config import Config
from recbole_ext.pipeline import corpus, two_stage
from recbole_ext.pipeline.candidates import read_candidates
from recbole_ext.pipeline.two_stage import read_plan, run_pipeline
from recbole_ext.rerankers.recbole import RecBoleReranker
from recbole_ext.run_folder import write_config
from recbole_ext.types import UserError


def settings_of(model: str, **more: Any) -> dict[str, Any]:
    return {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {**LEAVE_ONE_OUT, "mode": "full"},
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@10",
        "use_gpu": False,
        "show_progress": False,
        "state": "WARNING",
        "epochs": 0,
        **SIZES[model],
        **more,
    }


@pytest.fixture
def plan(runs, tiny_data_path, tmp_path) -> dict[str, Any]:
    """A trained SASRec, and a BPR that is trained as the reranker, on data that are split alike."""
    model = {**SIZES["BPR"], "epochs": 0, "use_gpu": False, "state": "WARNING"}
    model |= {"show_progress": False, "metrics": ["NDCG"], "valid_metric": "NDCG@10"}
    given = {
        "dataset": "tiny",
        "data_path": str(tiny_data_path),
        "output_dir": str(tmp_path / "out"),
        "retriever_run": str(runs("SASRec")),
        "retrieval_top_k": 12,
        "rerank_top_k": 10,
        "output_top_k": 5,
        "topk": [1, 5],
        "reranker": "recbole",
        "reranker_settings": {"model": "BPR", "model_settings": model},
    }
    return read_plan(None, [f"--{key}={json.dumps(value)}" for key, value in given.items()])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder and path.name not in ("train.log", ".lock")
    }


def test_steps_lie_in_one_folder_and_are_done_once(plan, tmp_path, capsys, monkeypatch):
    seen: list[Any] = []
    fit = RecBoleReranker.fit
    monkeypatch.setattr(
        RecBoleReranker, "fit", lambda self, *rows: seen.append(rows) or fit(self, *rows)
    )
    result = run_pipeline(plan)
    out = tmp_path / "out"
    names = sorted(path.name.partition("-")[0] for path in out.iterdir() if path.is_dir())
    assert names == ["candidates", "inputs", "rerank", "reranker"]
    assert {"report.md", "results.csv", "result.json"} <= {path.name for path in out.iterdir()}
    assert result["metrics"].keys() == {"stage_one", "conditional", "overall"}
    csv = pd.read_csv(out / "results.csv")
    value = csv[(csv["block"] == "overall") & (csv["metric"] == "recall@5")]["value"].item()
    assert value == pytest.approx(result["metrics"]["overall"]["recall@5"])

    # the reranker is trained on the valid split's rows, of users who have a hit there
    (place,) = out.glob("candidates-*")
    valid = read_candidates(place).split("valid")
    targets = dict(zip(valid.users, valid.targets, strict=True))
    train, held, _ = seen[0]
    for rows in filter(None, (train, held)):
        assert all(targets[u] == t for u, t in zip(rows.users, rows.targets, strict=True))
        assert all(len(row) == 10 for row in rows.candidates)

    before = bytes_of(out)
    capsys.readouterr()
    again = run_pipeline(plan)
    assert capsys.readouterr().out.count("finished before, kept") == 3 and len(seen) == 1
    assert bytes_of(out) == before and again["metrics"] == result["metrics"]

    with pytest.raises(UserError, match="BPR is not trained yet"):
        run_pipeline({**plan, "train_reranker": False, "output_top_k": 4})
    capsys.readouterr()
    other = {**plan, "reranker": "popularity", "reranker_settings": {}, "output_top_k": 6}
    run_pipeline(other)
    assert capsys.readouterr().out.count("finished before, kept") == 1, "the candidates"
    assert {name: bytes_of(out)[name] for name in before} == before


@pytest.mark.parametrize("key", ["prompt", "model"])
def test_what_a_setting_names_is_an_input_by_its_content(key, plan, candidates, tmp_path):
    """A prompt that was edited, or a model that was trained anew, is not the one of before."""
    path = tmp_path / "own"
    path.mkdir()
    named = path if key == "model" else path / "prompt.txt"
    text = path / "prompt.txt"
    text.write_text("{history} {candidates}")
    more = {"reranker": "qwen", "reranker_settings": {key: str(named)}}

    def inputs():
        pipeline = two_stage.Pipeline({**plan, **more})
        return pipeline._reranker_inputs(read_candidates(candidates))

    before = inputs()
    assert inputs() == before
    text.write_text("{history}, {candidates}")
    assert inputs() != before


def test_what_is_broken_off_goes_on(plan, tmp_path, monkeypatch):
    """Broken off in every step, one after the other: what was done before stays as it is."""

    def breaks(*arguments: Any) -> None:
        folder = next(one for one in arguments if isinstance(one, Path))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "candidates.parquet").write_bytes(b"half of it")
        raise KeyboardInterrupt

    done: dict[str, bytes] = {}
    for step in ("write_candidates", "train_reranker", "rank_and_write"):
        with monkeypatch.context() as patch:
            patch.setattr(two_stage, step, breaks)
            with pytest.raises(KeyboardInterrupt, match="give the same command once more: it goes"):
                run_pipeline(plan)
        assert not (tmp_path / "out" / "result.json").exists()
        kept = bytes_of(tmp_path / "out")
        assert {name: kept[name] for name in done} == done
        done = {name: content for name, content in kept.items() if content != b"half of it"}
    assert [name for name in done if name.endswith("reranker.json")], "trained before it broke"
    result = run_pipeline(plan)
    kept = bytes_of(tmp_path / "out")
    assert {name: kept[name] for name in done} == done
    assert result["n_users"] == 30 and (tmp_path / "out" / "report.md").is_file()


def test_a_run_that_was_broken_off_is_resumed_and_a_finished_one_kept(tmp_path, monkeypatch):
    calls: list[Any] = []
    monkeypatch.setattr(corpus, "run", lambda *names, **rest: calls.append((names, rest)))
    corpus.train_into(tmp_path, "BPR", "tiny", {"epochs": 3})
    resolved = Config("BPR", "tiny", None, {"epochs": 3}).resolved
    write_config(tmp_path, {**resolved, "pretrain_dir": str(Path("runs/pretrained").resolve())})
    corpus.train_into(tmp_path, "BPR", "tiny", {"epochs": 3, "show_progress": False})
    for name in ("result.json", "best.pt"):
        (tmp_path / name).touch()
    corpus.train_into(tmp_path, "BPR", "tiny", {"epochs": 3, "data_path": "elsewhere"})
    # what another command has begun there is not taken for this one's
    with pytest.raises(UserError, match="a run that was begun with epochs 3, not 4; delete it, or"):
        corpus.train_into(tmp_path, "BPR", "tiny", {"epochs": 4})
    with pytest.raises(UserError, match="a run that was begun with model BPR, not LightGCN; del"):
        corpus.train_into(tmp_path, "LightGCN", "tiny", {"epochs": 3})
    settings = {"epochs": 3, "output_dir": str(tmp_path)}
    assert calls == [
        (("BPR", "tiny"), {"config_dict": settings}),
        ((), {"resume": tmp_path}),
    ]


def test_the_command_trains_the_retriever_too(tiny_data_path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {
        "dataset": "tiny",
        "data_path": str(tiny_data_path),
        "retriever": "BPR",
        "retriever_settings": settings_of("BPR"),
        "retrieval_top_k": 6,
        "rerank_top_k": 6,
        "output_top_k": 5,
        "reranker": "identity",
        "reranker_settings": {},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(given))
    assert main(["pipeline", "--config=mine.yaml", "--topk=[5]", "--seed=4"]) == 0
    out = capsys.readouterr().out
    assert "retriever: done in" in out and "stage one BPR; reranker identity" in out
    assert out.endswith("folder: runs/two_stage-tiny\n")
    result = json.loads((tmp_path / "runs" / "two_stage-tiny" / "result.json").read_text())
    assert result["metrics"]["overall"] == result["metrics"]["stage_one"]
    assert result["plan"]["seed"] == 4 and list(result["steps"]) == [
        "retriever",
        "candidates",
        "rerank",
    ]
    (run,) = (tmp_path / "runs" / "two_stage-tiny").glob("retriever-*")
    assert "seed: 4" in (run / "config.yaml").read_text()
    assert main(["pipeline", "--config=mine.yaml", "--topk=[5]", "--seed=4"]) == 0
    assert capsys.readouterr().out.count("finished before, kept") == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--retreiver=SASRec"], "no setting 'retreiver'; did you mean 'retriever'"),
        (["--retrieval_top_k=many"], "retrieval_top_k takes int, not 'many'"),
        (["--history=masked"], "history takes mask or keep, not 'masked'; did you mean 'mask'"),
        (["--valid_share=1.0"], "valid_share takes a share from 0 to below 1, not 1.0"),
        (["--rerank_top_k=300"], "rerank_top_k 300 is more than retrieval_top_k 200"),
        (["--retriever=SASrec"], "unknown model 'SASrec'; did you mean 'SASRec'"),
        (["--reranker=recbol"], "no reranker 'recbol'; did you mean 'recbole'"),
        (["--reranker_settings={modell: x}"], "recbole has no setting 'modell'; did you"),
        (["--retriever_settings={epoch: 3}"], "unknown setting 'epoch'; did you mean 'epochs'"),
        (["--retriever_run=nowhere"], "retriever_run: nowhere holds no run"),
        (["--mode=sampled"], "mode takes retrieval or ground_truth"),
        (["--topk=[50]"], "every cut-off of .50. is beyond output_top_k 20"),
        (["--config=nowhere.yaml"], "cannot read the settings file nowhere.yaml"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_one_sentence_before_anything_begins(
    given, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    code = main(["pipeline", *given])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert re.search(sentence, error), error
    assert not list(tmp_path.iterdir())
