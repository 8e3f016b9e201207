"""The commands ``candidates`` and ``rerank``: what they write and print, what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from recbole_ext.arguments import options_of
from recbole_ext.cli import main
from recbole_ext.paths import reranker_yaml
from recbole_ext.pipeline.candidates import read_candidates
from recbole_ext.pipeline.candidates_command import candidates as candidates_command
from recbole_ext.pipeline.manifest import read_manifest
from recbole_ext.pipeline.rerank_arguments import _command
from recbole_ext.pipeline.two_stage import read_plan
from recbole_ext.rerankers.build import reranker_files, settings_of
from recbole_ext.settings_reading import parse_overrides, read_yaml


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Any:
    """Runs a command in an empty folder; gives exit code, output and the bare error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.removeprefix("recbole-ext: ")

    return run


def result_of(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "result.json").read_text())


def test_candidates_of_a_run_and_of_their_merge(call, runs):
    for model in ("SASRec", "BPR"):
        code, out, err = call(
            "candidates",
            f"--run={runs(model)}",
            "--k=6",
            "--history=mask",
            f"--output_dir=c/{model}",
        )
        assert (code, err) == (0, "") and out.startswith(
            f"c/{model}: {model} on tiny, history mask"
        )
        assert re.search(r"test: 30 users, recall @6 0\.\d{4}; \d+ of 30 targets stand in", out)
    code, out, _ = call("candidates", "--merge=rrf", "--from=c/SASRec,c/BPR", "--output_dir=both")
    assert code == 0 and "both: rrf of SASRec, BPR on tiny" in out
    merged = read_candidates("both")
    assert merged.manifest.retriever["of"][1]["model"] == "BPR"
    code, out, _ = call("candidates", "--from=both", "--export=both.trec", "--split=test")
    assert code == 0
    arguments = ["--trec=both.trec", "--from=both", "--split=test", "--output_dir=back"]
    assert call("candidates", *arguments)[0] == 0
    assert read_candidates("back").split("test").candidates == merged.split("test").candidates


def test_identity_is_stage_one_and_the_files_are_there(call, candidates):
    code, out, err = call("rerank", f"--candidates={candidates}", "--reranker=identity")
    folder = f"runs/rerank-identity-{candidates.name}"
    assert (code, err) == (0, "") and f"folder: {folder}" in out
    result = result_of(folder)
    assert result["metrics"]["overall"] == result["metrics"]["stage_one"]
    assert result["ceilings"]["output_top_k"]["k"] == 12
    assert result["candidates"] == read_manifest(candidates).digest
    names = {"ranked.parquet", "per_user.parquet", "report.md", "result.json"}
    assert {path.name for path in Path(folder).iterdir()} == names
    assert (Path(folder) / "report.md").read_text() in out
    assert "Full ranking, candidates of stage one: tiny, test" in out and "SAMPLED" not in out


def test_popularity_goes_by_the_training_split(call, candidates, tiny_data_path):
    assert call("rerank", f"--candidates={candidates}", "--reranker=popularity")[0] == 0
    events = pd.read_csv(tiny_data_path / "tiny" / "tiny.inter", sep="\t")
    events.columns = [name.partition(":")[0] for name in events.columns]
    events = events.sort_values("timestamp", kind="stable")
    train = events.groupby("user_id").head(10**6)
    held = events.groupby("user_id").tail(2).index
    counts = train.drop(held)["item_id"].value_counts()
    ranked = pd.read_parquet(f"runs/rerank-popularity-{candidates.name}/ranked.parquet")
    for items, scores in zip(ranked["item"], ranked["score"], strict=True):
        assert scores.tolist() == [float(counts.get(item, 0)) for item in items]
        assert scores.tolist() == sorted(scores, reverse=True)


def test_ground_truth_is_sampled_and_says_so(call, candidates):
    code, out, err = call(
        "rerank",
        f"--candidates={candidates}",
        "--reranker=identity",
        "--mode=ground_truth",
        "--rerank_top_k=5",
        "--topk=1,3",
    )
    assert (code, err) == (0, "")
    folder = f"runs/rerank-identity-{candidates.name}-ground_truth"
    assert "SAMPLED, one positive among 5 candidates, no full ranking: tiny, test" in out
    assert "recall of the candidates" not in out
    result = result_of(folder)
    assert result["metrics"]["random"]["recall@3"] == pytest.approx(3 / 5)
    assert result["hit_rate"] == 1.0
    # the retriever's run is there, so stage one has an order of its own
    assert result["metrics"]["overall"] == result["metrics"]["stage_one"]
    assert result["metrics"]["stage_one"]["recall@3"] != pytest.approx(2 / 5)
    drawn = pd.read_parquet(f"{folder}/sampled.parquet")
    again = sum(row["targets"][0] in row["hist_id"] for _, row in drawn.iterrows())
    assert 0 < again < 30 and f"{again} of 30 positives stand in their user's history" in out
    assert len(drawn) == 30 and all(len(items) == 5 for items in drawn["cand_id"])
    for _, row in drawn.iterrows():
        assert set(row["cand_id"]) & {*row["hist_id"]} <= {*row["targets"]}


def test_a_trained_model_is_a_reranker_and_its_folder_is_one_too(call, candidates, runs):
    common = ["rerank", f"--candidates={candidates}"]
    assert call(*common, f"--reranker=recbole:{runs('SASRec')}", "--output_dir=own")[0] == 0
    own = result_of("own")
    assert own["metrics"]["overall"] == pytest.approx(own["metrics"]["stage_one"])
    assert own["reranker"] == f"recbole:{runs('SASRec')}"

    model = "{embedding_size: 8, epochs: 0, use_gpu: False, state: WARNING, show_progress: False}"
    trained = ["--reranker=recbole", "--model=BPR", f"--model_settings={model}"]
    code, _, err = call(*common, *trained, "--train_split=valid", "--output_dir=trained")
    assert code == 0, err
    kept = json.loads(Path("trained/reranker/reranker.json").read_text())
    assert kept["reranker"] == "recbole" and kept["split"] == "valid" and kept["n_train"] > 0
    code, _, err = call(*common, "--reranker_dir=trained/reranker", "--output_dir=again")
    assert code == 0, err
    assert result_of("again")["metrics"] == result_of("trained")["metrics"]
    assert result_of("again")["metrics"]["overall"] != own["metrics"]["overall"]
    code, _, err = call(*common, "--reranker_dir=trained/reranker", "--model=BPR")
    assert code == 2 and "has no --model" in err
    # it knows the answers of the rows that it was trained on
    code, _, err = call(*common, "--reranker_dir=trained/reranker", "--split=valid")
    assert code == 2 and "trained on the valid split, the one that is ranked" in err
    # the run that it trained is no other model's, though the ranking was broken off
    Path("trained/result.json").unlink()
    other = ["--reranker=recbole", "--model=LightGCN", f"--model_settings={model}"]
    code, _, err = call(*common, *other, "--train_split=valid", "--output_dir=trained")
    assert code == 2 and "holds a run that was begun with model BPR, not LightGCN" in err


RATIO = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"}


def test_what_was_trained_on_another_split_of_the_same_data_is_refused(
    call, candidates, runs, tmp_path
):
    """Its training rows are targets here: 27 of 30 where another seed has drawn them."""

    def run_of(name: str, **changed: Any) -> Path:
        folder = shutil.copytree(runs("BPR"), tmp_path / name)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, **changed}))
        return folder

    ratio = run_of("ratio", eval_args=RATIO)
    code, _, err = call("rerank", f"--candidates={candidates}", f"--reranker=recbole:{ratio}")
    assert code == 2 and re.search("the run .*ratio splits the data by .*'RS'.* by .*'LS'", err)

    first, second = (
        run_of(f"seed{seed}", eval_args={**RATIO, "order": "RO"}, seed=seed) for seed in (7, 8)
    )
    assert call("candidates", f"--run={first}", "--k=9", "--output_dir=c")[0] == 0
    common = ["rerank", "--candidates=c", "--output_dir=out"]
    code, _, err = call(*common, "--reranker=recbole", "--model=BPR", "--train_split=valid")
    assert code == 2 and re.search("the BPR to train splits .*'seed': 2020.* 'seed': 7", err), err
    assert not list(Path("out").rglob("*.pt"))
    code, _, err = call(*common, f"--reranker=recbole:{second}")
    assert code == 2 and re.search("'seed': 8.* by .*'seed': 7", err)
    assert call(*common, f"--reranker=recbole:{first}")[0] == 0


BAD = [
    ("candidates", [], "candidates come from a run .* or from other candidates"),
    ("candidates", ["--run={run}", "--from=x"], "candidates come from a run .* one of the two"),
    ("candidates", ["--run=nowhere"], "nowhere holds no run"),
    ("candidates", ["--run={run}", "--k=41"], "k: 41 candidates are more than the 40 items"),
    ("candidates", ["--run={run}", "--k=0"], "--k takes a number of candidates from 1, not 0"),
    ("candidates", ["--run={run}", "--split=tset"], "--split takes valid or test.*mean 'test'"),
    ("candidates", ["--run={run}", "--history=maks"], "history takes mask or keep.*mean 'mask'"),
    ("candidates", ["--run={run}", "--merge=rrf"], "--merge is for candidates of --from"),
    ("candidates", ["--run={run}", "--export=a"], "--export is for candidates of --from; leave"),
    ("candidates", ["--from={c}", "--export=a", "--k=3"], "--export takes .*, and no --k"),
    ("candidates", ["--from={c}", "--export=a", "--output_dir=b"], "--export .*no --output_dir"),
    ("candidates", ["--from={c},{c}", "--merge=rrf", "--history=keep"], "--history is for --run"),
    ("candidates", ["--from={c}", "--trec=a", "--split=test", "--quota=3"], "nothing of a merge"),
    ("candidates", ["--run={run}", "--output_dir={c}"], "is there already, with .*another --out"),
    ("candidates", ["--from={c}"], "--from takes --merge=union, quota or rrf"),
    ("candidates", ["--from={c},{run}", "--merge=rrf"], "holds no candidates .no manifest.json"),
    ("candidates", ["--from={c},{c}", "--merge=quota", "--quota=a"], "--quota takes a number for"),
    ("candidates", ["--runs=x"], "has no --runs; did you mean 'run'"),
    ("rerank", ["--reranker=identity"], "rerank needs --candidates="),
    ("rerank", ["--candidates={c}"], "takes a reranker .* or one that was trained"),
    ("rerank", ["--candidates={run}", "--reranker=identity"], "holds no candidates"),
    ("rerank", ["--candidates={c}", "--reranker=popularty"], "no reranker 'popularty'; did you"),
    ("rerank", ["--candidates={c}", "--reranker=popularty", "--x=1"], "no reranker 'popularty'"),
    ("rerank", ["--candidates={c}", "--reranker=identity", "--mod=x"], "no --mod; did .*'mode'"),
    ("rerank", ["--candidates={c}", "--reranker=recbole", "--runn=x"], "no --runn; did .*'run'"),
    ("rerank", ["--candidates={c}", "--reranker=identity", "--mode=x"], "mode takes retrieval or"),
    ("rerank", ["--candidates={c}", "--reranker=identity", "--topk=x"], "topk takes numbers with"),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--rerank_top_k=13"],
        "rerank_top_k 13 is more than retrieval_top_k 12",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--train_split=valid"],
        "reranker identity has nothing to train",
    ),
    (
        "rerank",
        [
            *("--candidates={c}", "--reranker=cross_encoder:nowhere"),
            *("--train_split=valid", "--output_dir=new"),
        ],
        "cross.encoder .*cannot be (loaded|imported)",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--train_split=test"],
        "train_split test is the split that is ranked",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--train_split=test", "--split=valid"],
        "train_split takes valid, where test is ranked, not 'test'",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker_dir={c}"],
        "holds no trained reranker .no reranker.json",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--output_dir={c}"],
        "is there already, with",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=recbole:{other}"],
        "has other data .fingerprint .* than the candidates were made on",
    ),
    (
        "rerank",
        ["--candidates={c}", "--reranker=identity", "--text_template={{titel}}"],
        "tiny.item has no field 'titel'",
    ),
]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("item_id:token\ttitle:token_seq\ni1\tMél\n".encode("latin-1"), "cannot read .*tiny.item"),
        (b"", "tiny.item is empty"),
    ],
)
def test_titles_that_cannot_be_read_are_one_sentence(content, sentence, candidates, call, tmp_path):
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "tiny.item").write_bytes(content)
    folder = shutil.copytree(candidates, tmp_path / "c")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["data_path"] = str(tmp_path / "data")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = call("rerank", f"--candidates={folder}", "--reranker=identity")
    assert code == 2 and re.search(sentence, err) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"), BAD, ids=[f"{c} {' '.join(a)}" for c, a, _ in BAD]
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    command, arguments, sentence, call, candidates, runs, tmp_path
):
    places = {"run": runs("SASRec"), "c": candidates}
    if "{other}" in "".join(arguments):
        places["other"] = runs("Pop")
    code, out, err = call(command, *(argument.format(**places) for argument in arguments))
    assert code == 2 and out == "" and re.search(sentence, err), err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_lists_options_and_the_rerankers_settings(call):
    code, out, _ = call("candidates", "--help")
    assert code == 0 and "--from " in out and "--history" in out
    code, out, _ = call("rerank", "--help")
    assert code == 0 and "--rerank_top_k" in out and "cross_encoder" in out
    code, out, _ = call("rerank", "--reranker=recbole", "--help")
    assert code == 0 and "model_settings: ~" in out


@pytest.mark.parametrize("page", ["README.md", "docs/two_stage.md"])
def test_every_command_in_the_pages_has_options_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"recbole-ext (candidates|rerank|pipeline) ((?:--[^\s`]+ ?)+)", text)
    assert {command for command, _ in found} == {"candidates", "rerank", "pipeline"}
    for command, arguments in found:
        known = {
            "candidates": set(options_of(candidates_command)),
            "rerank": {*options_of(_command()), "help"},
            "pipeline": {*read_plan(None, []), "config"},
        }[command]
        for argument in arguments.split():
            key, _, value = argument.removeprefix("--").partition("=")
            assert key.partition(".")[0] in known, argument
            assert key != "reranker" or settings_of(value, {}) is not None, argument


@pytest.mark.parametrize("name", reranker_files())
def test_no_reranker_has_a_setting_that_the_command_takes_for_its_own(name):
    assert not read_yaml(reranker_yaml(name)).keys() & options_of(_command()).keys()


def test_the_commands_of_the_page_on_language_models_have_options_that_exist():
    text = (ROOT / "docs" / "llm_rerankers.md").read_text(encoding="utf-8")
    found = re.findall(r"recbole-ext rerank ((?:--\S+ ?)+)", text)
    assert len(found) > 3
    for line in found:
        given = dict(one.removeprefix("--").split("=", 1) for one in line.split())
        own = {key: value for key, value in given.items() if key not in options_of(_command())}
        settings = parse_overrides([f"--{key}={value}" for key, value in own.items()])
        settings_of(given["reranker"], settings)
