"""A comparison on the tiny data: planned, stopped, continued, reported, with controls."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from recbole_ext.cli import main
from recbole_ext.compare import runner
from recbole_ext.compare.analysis import Analysis, quartiles
from recbole_ext.compare.collect import read_plan, read_runs
from recbole_ext.compare.controls import MIX_KEYS, mix_of
from recbole_ext.compare.overrides import read_overrides
from recbole_ext.compare.plan import plan, seeds_of
from recbole_ext.compare.report import write_report
from recbole_ext.compare.split import load_split, read_split
from recbole_ext.config import Config
from recbole_ext.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_ext.trainer.run_log import RunLog
from recbole_ext.types import UserError
from tests.compare.conftest import SMALL, in_process, tiny, write_overrides


def folders(place: Path) -> dict[str, Path]:
    return {row["name"]: place / row["folder"] for row in read_plan(place)}


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


# ---- the plan


def test_seeds():
    assert seeds_of("3") == [2020, 2021, 2022]
    assert seeds_of("1,5") == [1, 5]
    assert seeds_of("2020,") == [2020]
    for bad in ("", "0", "a", "1,1", "1,01", "²", "1,²"):
        with pytest.raises(UserError, match="--seeds"):
            seeds_of(bad)


def test_a_seed_is_not_taken_for_a_number_of_seeds():
    assert len(seeds_of("100")) == 100
    with pytest.raises(UserError, match="one seed is written --seeds=2020,$"):
        seeds_of("2020")


def test_unequal_rankings_are_refused_before_anything_runs(overrides, tmp_path):
    content = yaml.safe_load(overrides.read_text())
    for key, value in (("mask_history", True), ("eval_args", {"mode": "uni20"})):
        overrides.write_text(yaml.safe_dump({**content, "models": {"BPR": {key: value}}}))
        with pytest.raises(UserError, match=key):
            plan(["Pop", "BPR"], ["tiny"], [2020], tmp_path, overrides)


def test_what_cannot_be_meant_is_refused(overrides, tmp_path):
    def planned(models, *more, **options):
        return plan(models, ["tiny"], [2020], tmp_path, overrides, more, **options)

    with pytest.raises(UserError, match="--seeds=1,2,3"):
        planned(["Pop"], "--seed=3")
    with pytest.raises(UserError, match="add DuoRec"):
        planned(["Pop", "FTRagRec"], controls=True)
    with pytest.raises(UserError, match="a comparison is of ranks"):
        planned(["Pop"], "--metrics=[ItemCoverage]", "--valid_metric=ItemCoverage@10")
    overrides.write_text("models: {BPRR: {epochs: 1}}")
    with pytest.raises(UserError, match="did you mean 'BPR'"):
        planned(["Pop", "BPR"])


def test_variants_are_models_with_settings_of_their_own(tiny_data_path, tmp_path):
    settings = tiny(tiny_data_path)
    settings["models"] = {"BPR": {"embedding_size": 8}}
    settings["variants"] = {
        "wide": {"model": "BPR", "embedding_size": 16},
        "FTRagRec, gate": {"model": "FTRagRec", "mix": "gate"},
    }
    path = write_overrides(tmp_path / "all.yaml", settings)
    runs = plan(["FTRagRec", "BPR", "DuoRec"], ["tiny"], [2020], tmp_path, path)
    found = {one.name: one for one in runs}
    assert [one.name for one in runs].index("DuoRec") < [one.name for one in runs].index(
        "FTRagRec, gate"
    )
    sizes = [found[name].settings["embedding_size"] for name in ("BPR", "wide")]
    assert sizes == [8, 16] and found["wide"].model == "BPR" and not found["wide"].control_of
    gate, plain = found["FTRagRec, gate"], found["FTRagRec"]
    assert gate.settings["mix"] == "gate" and gate.needs == plain.needs == (found["DuoRec"].folder,)
    assert len({one.folder for one in runs}) == len(runs) == 5


@pytest.mark.parametrize(
    ("variants", "sentence"),
    [
        ({"wide": {"embedding_size": 16}}, "'wide' has no model; write wide: {model: BPR, ...}"),
        ({"wide": {"model": "BPRR"}}, "wide: model 'BPRR' is not in .*did you mean 'BPR'"),
        ({"BPR": {"model": "BPR"}}, "'BPR' is there already; give it a name of its own"),
        ({"wide": {"model": "BPR", "seed": 7}}, "wide: seed is the comparison's own; give --se"),
        ({200: {"model": "BPR", "epochs": 2}}, "'variants' maps a name to its settings"),
        ({"wide": 3}, "'variants' maps a name to its settings, as BPR small: {model: BPR,"),
        ({"same": {"model": "BPR"}}, "'same' and 'BPR' have the same settings; change a setting"),
        (
            {"wide": {"model": "BPR", "embeding_size": 1}},
            "embeding_size.*did you mean 'embedding_s",
        ),
        (
            {"masked": {"model": "BPR", "mask_history": True}},
            "mask_history on tiny is False for BPR",
        ),
    ],
)
def test_variants_that_cannot_be_meant_are_refused(tiny_data_path, tmp_path, variants, sentence):
    path = write_overrides(tmp_path / "all.yaml", {**tiny(tiny_data_path), "variants": variants})
    with pytest.raises(UserError, match=sentence):
        plan(["BPR"], ["tiny"], [2020], tmp_path, path)


@pytest.mark.parametrize(
    ("variants", "more", "sentence"),
    [
        ({"far": {"top_k": 9999}}, [], "dataset 'tiny': far: top_k: 9999 neighbours cannot come"),
        ({"odd": {"mix": "vectors"}}, [], "dataset 'tiny': odd: mix: 'vectors' is none of"),
        ({}, ["--topk=[500]", "--valid_metric=NDCG@500"], "'tiny': DuoRec: topk .500. asks for"),
    ],
)
def test_what_the_data_refuse_is_found_before_anything_runs(
    tiny_data_path, tmp_path, variants, more, sentence
):
    variants = {name: {"model": "FTRagRec", **one} for name, one in variants.items()}
    settings = {**tiny(tiny_data_path), "models": {"DuoRec": SMALL, "FTRagRec": SMALL}}
    path = write_overrides(tmp_path / "all.yaml", {**settings, "variants": variants})

    def read(name, wanted):
        return runner.read_dataset(name, wanted, tmp_path, in_process)

    names = ["DuoRec", "FTRagRec"]
    with pytest.raises(UserError, match=sentence):
        plan(names, ["tiny"], [2020], tmp_path, path, more, fingerprint_of=read)
    assert not (tmp_path / "data" / "tiny.json").exists()


def test_a_variant_may_set_what_recbole_rewrites_but_no_argument_may_undo_it(
    tiny_data_path, tmp_path
):
    negatives = {"distribution": "uniform", "sample_num": 1}
    variant = {"model": "BPR", "train_neg_sample_args": negatives, "embedding_size": 16}
    settings = {**tiny(tiny_data_path), "variants": {"wide": variant}}
    path = write_overrides(tmp_path / "all.yaml", settings)
    assert len(plan(["BPR"], ["tiny"], [2020], tmp_path, path, ["--embedding_size=16"])) == 2
    with pytest.raises(UserError, match="--embedding_size is set by .*wide.*leave out the variant"):
        plan(["BPR"], ["tiny"], [2020], tmp_path, path, ["--embedding_size=8"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"model": {"BPR": {"epochs": 2}}}, "all.yaml: model is .* own; give --models, and setti"),
        ({"seed": 3}, "all.yaml: seed is the comparison's own; give --seeds"),
        ({"models": {"BPR": {"output_dir": "x"}}}, "all.yaml: BPR: output_dir is .*--output_dir"),
        ({"datasets": {"tiny": {"seed": 3}}}, "all.yaml: tiny: seed is the comparison's own"),
    ],
)
def test_what_is_the_comparisons_own_is_refused_in_the_file(
    tiny_data_path, tmp_path, more, sentence
):
    path = write_overrides(tmp_path / "all.yaml", {**tiny(tiny_data_path), **more})
    with pytest.raises(UserError, match=sentence):
        plan(["BPR"], ["tiny"], [2020], tmp_path, path)


def test_a_folder_keeps_what_another_command_compared_there(overrides, tmp_path):
    for models in (["BPR"], ["Pop"]):
        runs = plan(models, ["tiny"], [2020], tmp_path, overrides)
        assert runner.run_all(runs, tmp_path, lambda line: None, in_process) == {}
    assert [row["name"] for row in read_plan(tmp_path)] == ["Pop", "BPR"]
    assert "| BPR |" in write_report(tmp_path) and "| Pop" in write_report(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[]", '[{"name": "Pop"}]', "[3]"])
def test_a_damaged_plan_is_one_sentence(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(
        UserError, match="plan.json is damaged; remove it and give the comparison's"
    ):
        write_report(tmp_path)


def test_a_damaged_result_is_written_anew_and_damaged_ranks_are_named(overrides, tmp_path):
    runs = plan(["BPR"], ["tiny"], [2020], tmp_path, overrides)
    runner.run_all(runs, tmp_path, lambda line: None, in_process)
    folder, wanted = runs[0].folder, result_of(runs[0].folder)["test"]
    (folder / "result.json").write_text('{"best_valid": {"nd')
    assert not runner.is_done(folder)
    with pytest.raises(
        UserError, match="run of BPR, seed 2020, cannot be read .*remove the folder"
    ):
        write_report(tmp_path)
    assert runner.run_all(runs, tmp_path, lambda line: None, in_process) == {}
    assert result_of(folder)["test"] == wanted
    for text in ("5", "null", '{"best_valid": 3}'):
        (folder / "result.json").write_text(text)
        assert not runner.is_done(folder)
    (folder / "per_user.parquet").unlink()
    lines = []
    assert runner.run_all(runs, tmp_path, lines.append, in_process) == {}
    assert runner.is_done(folder) and "done before" not in lines[0]
    (folder / "per_user.parquet").unlink()  # the ranks alone
    assert runner.run_all(runs, tmp_path, lines.append, in_process) == {}
    assert (folder / "per_user.parquet").is_file()
    (folder / "per_user.parquet").write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=f"{folder.name}: the run of BPR, seed 2020, cannot be read"
    ):
        write_report(tmp_path)


@pytest.fixture(scope="module")
def one_run(tiny_data_path, tmp_path_factory):
    place = tmp_path_factory.mktemp("one")
    path = write_overrides(place / "all.yaml", tiny(tiny_data_path))
    runner.run_all(plan(["BPR"], ["tiny"], [2020], place, path), place, lambda _: None, in_process)
    return place


def _without(key):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != key})


@pytest.mark.parametrize(
    ("name", "edit", "why"),
    [
        ("result.json", lambda _: "[]", "result.json holds no result"),
        ("result.json", lambda _: "null", "result.json holds no result"),
        ("result.json", _without("seconds"), "result.json has no seconds"),
        ("config.yaml", _without("topk"), "config.yaml has no topk"),
        ("metrics.jsonl", lambda _: "[]", "metrics.jsonl, line 1, is no epoch record"),
        ("metrics.jsonl", lambda _: '{"epoch": 0}\n', "metrics.jsonl, line 1, is no epoch record"),
        ("metrics.jsonl", lambda text: text[:50], "metrics.jsonl has 0 of 1 epochs"),
        ("metrics.jsonl", lambda _: "", "metrics.jsonl has 0 of 1 epochs"),
    ],
)
def test_a_file_of_another_shape_is_named(one_run, tmp_path, name, edit, why):
    shutil.copytree(one_run, tmp_path / "place")
    [path] = (tmp_path / "place").glob(f"runs/BPR-*/{name}")
    text = path.read_text()
    path.write_text(edit(json.dumps(yaml.safe_load(text)) if name == "config.yaml" else text))
    with pytest.raises(UserError, match=rf"{re.escape(why)}\); remove the folder and give the"):
        write_report(tmp_path / "place")


def test_ranks_without_a_column_are_named(one_run, tmp_path):
    shutil.copytree(one_run, tmp_path / "place")
    [path] = (tmp_path / "place").glob("runs/BPR-*/per_user.parquet")
    pd.read_parquet(path).drop(columns="rank").to_parquet(path)
    with pytest.raises(UserError, match="per_user.parquet has no rank"):
        write_report(tmp_path / "place")


def test_the_folder_of_a_run_is_none_of_a_comparison(one_run):
    [folder] = one_run.glob("runs/BPR-*[!.log]")
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match=r"holds a run \(config.yaml\); name another folder"):
        runner.run_all([], folder, lambda _: None, in_process)
    assert sorted(folder.iterdir()) == before


def test_a_misspelt_part_of_the_overrides_is_named(tmp_path):
    path = write_overrides(tmp_path / "all.yaml", {"modles": {"BPR": {"epochs": 3}}})
    with pytest.raises(UserError, match="'modles' is no part .* did you mean 'models'"):
        read_overrides(path, ["BPR"], ["tiny"])


def test_a_validation_that_is_no_number_is_a_dash(overrides, tmp_path):
    runs = plan(["BPR"], ["tiny"], [2020], tmp_path, overrides)
    runner.run_all(runs, tmp_path, lambda line: None, in_process)
    path = runs[0].folder / "result.json"
    content = json.loads(path.read_text())
    content["best_valid"] = dict.fromkeys(content["best_valid"])
    path.write_text(json.dumps(content))
    lines = []
    runner.run_all(runs, tmp_path, lines.append, in_process)
    assert lines[0].endswith("done before, validation ndcg@10 -")
    assert "| BPR | 1 | - |" in write_report(tmp_path)


def test_a_model_that_leaves_no_ranks_is_a_failure(overrides, tmp_path):
    runs = plan(["BPR"], ["tiny"], [2020], tmp_path, overrides)

    def without_ranks(job, log):
        in_process(job, log)
        (runs[0].folder / "per_user.parquet").unlink()

    failures = runner.run_all(runs, tmp_path, lambda line: None, without_ranks)
    assert list(failures.values()) == [
        "BPR leaves no ranks of single users; leave it out of --models"
    ]


def test_a_damaged_split_is_named_and_its_plots_are_left_out(finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished, place)
    assert "by history length" in (write_report(place), (place / "report.html").read_text())[1]
    for text in (
        "{",
        '{"fingerprint": "x"}',
        '{"fingerprint": "x", "history": 3, "popularity": 3}',
    ):
        (place / "data" / "tiny.json").write_text(text)
        damaged = f"{place / 'data' / 'tiny.json'} is damaged, so nothing is shown"
        assert damaged in write_report(place)
        assert "by history length</" not in (place / "report.html").read_text()
    (place / "data" / "tiny.json").write_text(
        '{"fingerprint": "x", "history": {}, "popularity": {}}'
    )
    assert "tiny.json is of other data, so nothing is shown" in write_report(place)
    (place / "data" / "tiny.json").unlink()
    assert "tiny.json is missing, so nothing is shown" in write_report(place)


def test_one_name_with_two_settings_is_refused_by_the_report(overrides, tmp_path):
    runs = plan(["BPR"], ["tiny"], [1, 2], tmp_path, overrides, ["--embedding_size=8"])
    runner.run_all(runs, tmp_path, lambda line: None, in_process)
    path = runs[1].folder / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "eval_memory_mib": 7.0}))  # where and how
    write_report(tmp_path)
    path.write_text(yaml.safe_dump({**settings, "embedding_size": 16}))
    with pytest.raises(
        UserError, match="embedding_size of BPR is 8 with seed 1 and 16 with seed 2"
    ):
        write_report(tmp_path)


def test_a_second_command_in_the_folder_is_one_sentence(overrides, tmp_path, capsys):
    place = tmp_path / "compare"
    command = ["compare", "--models=Pop", "--datasets=tiny", "--seeds=1"]
    command += [f"--overrides={overrides}", f"--output_dir={place}"]
    assert main([*command, "--epoch=3"]) == 2
    assert not place.exists()
    with runner.sole_command(place):
        capsys.readouterr()
        assert main(command) == 2
        said = f"another process is at work in the comparison's folder {place} ("
        assert said in capsys.readouterr().err
    assert not (place / "data").exists()


def test_a_place_that_is_no_folder_is_one_sentence(overrides, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(UserError, match=f"--output_dir={place}: .* cannot be written there"):
            runner.run_all([], place, lambda line: None, in_process)


def test_recboles_sequential_models_are_accelerated_unless_told_not_to(overrides, tmp_path):
    def accelerated(*more):
        runs = plan(["Pop", "SASRec", "DuoRec"], ["tiny"], [1], tmp_path, overrides, more)
        return [one.settings["accelerate"] for one in runs], {one.folder.name for one in runs}

    on, with_it = accelerated()
    off, without = accelerated("--accelerate=False")
    assert on == [False, True, False] and off == [False, False, False]
    assert len(with_it & without) == 2  # SASRec's numbers are others, so it is another run


def test_a_run_is_done_with_the_same_data_only(overrides, tmp_path):
    def names(fingerprint):
        return {
            one.folder.name
            for one in plan(
                ["Pop"],
                ["tiny"],
                [1],
                tmp_path,
                overrides,
                fingerprint_of=lambda name, wanted: fingerprint,
            )
        }

    assert names("a") == names("a") != names("b")


def test_the_commands_own_words(tiny_data_path, overrides, tmp_path, capsys):
    common = ["compare", "--datasets=tiny", f"--overrides={overrides}"]
    for more, said in (
        (["--models="], "compare needs --models"),
        (["--models=,"], "compare needs --models"),
        (["--models=Pop", "--datasets=,"], "--datasets is given twice"),
        (["--models=Pop", "--controls"], "add DuoRec and FTRagRec"),
        (["--models=Pop", "--report=here"], "--report stands alone"),
    ):
        assert main([*common, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["compare", "--models=Pop", "--datasets=,"]) == 2
    assert "compare needs --datasets: recbole-ext compare --mod" in capsys.readouterr().err
    assert main(["compare", f"--report={tmp_path}"]) == 2
    assert "no plan.json" in capsys.readouterr().err


def test_settings_files_are_for_all_and_weaker_than_the_overrides(overrides, tmp_path):
    mine = write_overrides(tmp_path / "mine.yaml", {"epochs": 7, "learning_rate": 0.5})
    more = write_overrides(tmp_path / "more.yaml", {"learning_rate": 0.25})
    given = read_overrides(overrides, ["Pop", "BPR"], ["tiny"], [mine, more])
    for one in plan(["Pop", "BPR"], ["tiny"], [2020], tmp_path, given):
        assert (one.settings["epochs"], one.settings["learning_rate"]) == (1, 0.25)
    parts = [
        {"eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}}, "clip_grad_norm": {"max_norm": 1}},
        {"eval_args.order": "RO", "clip_grad_norm.norm_type": 1},
        {"eval_args": {"group_by": None}, "clip_grad_norm": {"max_norm": 3}},
    ]
    files = [write_overrides(tmp_path / f"{i}.yaml", part) for i, part in enumerate(parts)]
    common = {"data_path": str(overrides.parent), "load_col": None}
    wanted = Config("BPR", "tiny", files, common).resolved
    for config_files, rest in ((files, None), (files[:2], files[2])):
        given = read_overrides(rest, ["BPR"], ["tiny"], config_files)
        found = Config("BPR", "tiny", None, given.for_all).resolved
        for key in ("eval_args", "clip_grad_norm"):
            assert found[key] == wanted[key]
    alone = read_overrides(None, ["BPR"], ["tiny"], [mine])
    assert alone.for_all == {"epochs": 7, "learning_rate": 0.5}
    with pytest.raises(UserError, match="own.yaml: seed is the comparison's own; give --seeds="):
        read_overrides(
            None, ["BPR"], ["tiny"], [write_overrides(tmp_path / "own.yaml", {"seed": 1})]
        )


# ---- the runs


def test_a_stopped_comparison_goes_on(overrides, tmp_path):
    place = tmp_path / "compare"
    runs = plan(["Pop", "BPR"], ["tiny"], [2020, 2021], place, overrides)
    done = []

    def stopped(job, log):
        if done:
            raise KeyboardInterrupt
        done.append(job)
        return in_process(job, log)

    with pytest.raises(KeyboardInterrupt):
        runner.run_all(runs, place, work=stopped)
    assert [runner.is_done(one.folder) for one in runs] == [True, False, False, False]
    assert write_report(place).count("not run yet") == 3
    lines = []
    assert runner.run_all(runs, place, lines.append, in_process) == {}
    assert "done before" in lines[0] and "done before" not in lines[1]
    done = read_runs(place, read_plan(place))
    assert len(done) == 4
    assert {one.name for one in done if one.tied()} == {"Pop"}
    text = write_report(place)
    assert "±" in text and "Missing" not in text
    table = pd.read_csv(place / "results.csv")
    assert len(table) == 4 * 4
    for row in table.itertuples():  # from the ranks, by hand
        one = next(d for d in done if (d.name, d.row["seed"]) == (row.model, row.seed))
        ranks = pd.read_parquet(place / one.row["folder"] / "per_user.parquet")["rank"]
        name, k = row.metric.split("@")
        value = {"recall": ranks <= int(k), "ndcg": (ranks <= int(k)) / np.log2(ranks + 1)}[name]
        assert row.value == pytest.approx(value.mean(), abs=1e-6)


def test_a_failure_is_recorded_and_told(tiny_data_path, overrides, tmp_path, monkeypatch, capsys):
    def failing(job, log):
        return in_process(job, log) if job.get("model") != "BPR" else "no memory (exit code -9)"

    monkeypatch.setattr(runner, "in_child", failing)
    place = tmp_path / "compare"
    arguments = ["compare", "--models=Pop,BPR", "--datasets=tiny", "--seeds=1"]
    code = main([*arguments, f"--overrides={overrides}", f"--output_dir={place}"])
    assert code == 1
    assert "Missing: BPR, seed 2020: no memory (exit code -9)" in capsys.readouterr().out
    assert [row["failure"] for row in read_plan(place)] == [None, "no memory (exit code -9)"]
    assert main(["compare", f"--report={place}"]) == 0


def test_what_needs_a_failed_run_is_not_started(overrides, tmp_path):
    place = tmp_path / "compare"
    runs = plan(["DuoRec", "FTRagRec"], ["tiny"], [2020], place, overrides)
    failures = runner.run_all(runs, place, lambda line: None, lambda job, log: "broken")
    assert list(failures.values()) == ["broken", f"it needs {runs[0].folder.name}, which failed"]


def test_a_run_that_goes_on_takes_where_and_how_as_it_is_said_now(
    tiny_data_path, overrides, tmp_path
):
    elsewhere = tmp_path / "moved"
    shutil.copytree(tiny_data_path, elsewhere)

    def planned(*more):
        return plan(["BPR"], ["tiny"], [2020], tmp_path, overrides, more)[0]

    def job(one):
        return runner._job(one)

    first = planned()
    in_process(job(first), tmp_path / "log")
    (first.folder / "result.json").unlink()
    again = planned(f"--data_path={elsewhere}", "--eval_memory_mib=7", "--worker=0")
    assert again.folder == first.folder
    in_process(job(again), tmp_path / "log")
    settings = yaml.safe_load((first.folder / "config.yaml").read_text())
    assert settings["data_path"] == str(elsewhere) and settings["eval_memory_mib"] == 7
    assert runner.is_done(first.folder)


def test_what_goes_on_from_another_run_takes_them_too(finished, tmp_path):
    by_name = folders(finished)
    settings = yaml.safe_load((by_name["DuoRec"] / "config.yaml").read_text())
    given = yaml.safe_load((finished / "all.yaml").read_text())
    own = {key: settings[key] for key in given.keys() & settings.keys()}
    job = {
        "kind": "extend",
        "model": "DuoRec",
        "dataset": "tiny",
        "settings": {**own, **SMALL, "eval_memory_mib": 7.0},
        "overrides": [],
        "folder": str(tmp_path / "more"),
        "needs": [str(by_name[name]) for name in ("DuoRec", "FTRagRec")],
        "mixes_alike": False,
    }
    assert in_process(job, tmp_path / "log") is None
    assert yaml.safe_load((tmp_path / "more" / "config.yaml").read_text())["eval_memory_mib"] == 7


def test_what_does_not_go_on_as_long_as_it_should_is_a_failure(finished, tmp_path):
    """A callback has stopped the run that goes on, and so it is stopped at once."""
    by_name = folders(finished)
    stopped = tmp_path / "stopped"
    shutil.copytree(by_name["DuoRec"], stopped)
    payload = read_checkpoint(stopped / "last.pt")
    payload["early_stopping"]["stop"] = "enough"
    write_checkpoint(stopped / "last.pt", payload)
    settings = yaml.safe_load((stopped / "config.yaml").read_text())
    job = {
        "kind": "extend",
        "model": "DuoRec",
        "dataset": "tiny",
        "settings": {"data_path": settings["data_path"], **SMALL},
        "overrides": [],
        "folder": str(tmp_path / "more"),
        "needs": [str(stopped), str(by_name["FTRagRec"])],
        "mixes_alike": False,
    }
    for _ in range(2):  # given once more it is no success either
        assert in_process(job, tmp_path / "log").startswith("it ended after 1 of 2 epochs")
        assert not runner.is_done(tmp_path / "more")


# ---- warm start and controls


@pytest.mark.parametrize("mix", ["log_linear", "probability", "gate"])
def test_the_mix_of_a_finished_run_as_settings(mix, tmp_path):
    chosen = {"top_k": 20, "temperature": 0.0099999998}
    chosen |= {"initial_alpha": 0.35} if mix == "gate" else {"alpha": 0.5}
    chosen |= {"smoothing": 0.1} if mix == "log_linear" else {}
    (tmp_path / "result.json").write_text(json.dumps({"retrieval": {"mix": mix, **chosen}}))
    write_overrides(tmp_path / "config.yaml", {"mix": mix, "alpha": None, "train_alpha": None})
    wanted = {"top_k": 20, "retriever_temperature": 0.01, "learn_temperature": False}
    if mix != "gate":  # what it was trained with is not what was chosen
        wanted |= {"alpha": 0.5, "train_alpha": 0.35}
    if mix == "log_linear":
        wanted["smoothing"] = 0.1
    found = mix_of(tmp_path)
    assert found == wanted and found.keys() <= set(MIX_KEYS)


def test_the_warm_start_is_the_run_of_the_comparison(finished):
    by_name = folders(finished)
    assert result_of(by_name["FTRagRec"])["warm_start"] == str(by_name["DuoRec"])
    assert not (finished / "pretrained").exists()


def test_more_epochs_go_on_from_the_same_run(finished):
    by_name = folders(finished)
    before, after = (RunLog(by_name[n]) for n in ("DuoRec", "DuoRec (as many more epochs)"))
    n_more = len(RunLog(by_name["FTRagRec"]).read())
    records = after.read()
    assert records[: len(before.read())] == before.read()
    assert len(records) == len(before.read()) + n_more
    assert result_of(after.path.parent)["n_epochs"] == len(records)
    assert result_of(before.path.parent)["n_epochs"] == len(before.read())  # untouched


def test_alpha_0_ranks_as_duorec(finished):
    by_name = folders(finished)
    ranks = [
        pd.read_parquet(by_name[n] / "per_user.parquet") for n in ("DuoRec", "FTRagRec (alpha 0)")
    ]
    assert ranks[0].equals(ranks[1])


def test_controls_are_no_baselines(finished):
    data = Analysis(read_runs(finished, read_plan(finished)))
    assert data.best in ("Pop", "BPR", "DuoRec")
    assert len(data.controls_of("FTRagRec")) == 4
    random = data.runs["FTRagRec (random neighbours, weight fixed)"][0]
    keys = ("alpha", "top_k", "smoothing", "temperature")
    used, wanted = (
        {key: one.result["retrieval"][key] for key in keys}
        for one in (random, data.runs["FTRagRec"][0])
    )
    assert used == pytest.approx(wanted)
    assert not random.result["retrieval"]["is_calibrated"]
    assert random.settings["train_alpha"] == pytest.approx(0.35)
    gain = data.gains("FTRagRec (alpha 0)", "DuoRec")
    assert np.array_equal(gain, np.zeros(30))


# ---- the report's numbers


def test_a_result_that_its_ranks_do_not_explain_is_refused(overrides, tmp_path):
    runs = plan(["BPR"], ["tiny"], [2020], tmp_path, overrides)
    runner.run_all(runs, tmp_path, lambda line: None, in_process)
    result = result_of(runs[0].folder)
    result["test"]["recall@10"] += 0.01
    (runs[0].folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"recall@10.*ties between scores do not explain"):
        write_report(tmp_path)


def test_histories_and_popularity_are_of_the_training_split(tiny_data_path):
    settings = {**tiny(tiny_data_path), "eval_args": {"split": {"LS": "valid_and_test"}}}
    settings["eval_args"] |= {"order": "TO", "group_by": "user", "mode": "full"}
    split = read_split("tiny", {k: v for k, v in settings.items() if k != "models"})
    rows = pd.read_csv(tiny_data_path / "tiny" / "tiny.inter", sep="\t")
    rows = rows.sort_values(["user_id:token", "timestamp:float"])
    held_out = rows.groupby("user_id:token").tail(2)
    train = rows.drop(held_out.index)
    assert split.history == train["user_id:token"].value_counts().to_dict()
    seen = {item: n for item, n in split.popularity.items() if n}
    assert seen == train["item_id:token"].value_counts().to_dict()


@pytest.mark.parametrize("models", [["SASRec", "Pop"], ["DuoRec", "BPR"]])
def test_the_data_are_read_whatever_model_comes_first(models, overrides, tmp_path):
    """By the settings of the first, of which some (accelerate) are no other model's."""

    def read(name, wanted):
        return runner.read_dataset(name, wanted, tmp_path, in_process)

    runs = plan(models, ["tiny"], [1], tmp_path, overrides, fingerprint_of=read)
    assert [one.name for one in runs] == models
    assert load_split(tmp_path / "data" / "tiny.json").fingerprint


def test_the_split_has_the_runs_fingerprint(finished):
    split = load_split(finished / "data" / "tiny.json")
    fingerprints = {result_of(f)["dataset_fingerprint"] for f in folders(finished).values()}
    assert fingerprints == {split.fingerprint}


def test_quartiles_by_hand():
    found = quartiles(np.array([1, 1, 1, 1, 2, 3, 4, 9]))
    # edges 1, 1.5, 3.25: nothing lies between the first two
    assert {k: v.nonzero()[0].tolist() for k, v in found.items()} == {
        "1": [0, 1, 2, 3],
        "2–3": [4, 5],
        "4–9": [6, 7],
    }
