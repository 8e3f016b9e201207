"""What the report says of where a run started, and the seconds that it counts."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from recbole_ext.compare import tables
from recbole_ext.compare.analysis import Analysis
from recbole_ext.compare.collect import read_plan, read_runs
from recbole_ext.compare.start import read_start
from recbole_ext.trainer.run_log import RunLog


def result(folder, model="DuoRec", seed=1, train=7.0, n_epochs=3):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": model, "seed": seed, "seconds": {"train": train}, "n_epochs": n_epochs}
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def start_of(place, path, shown=(), **row):
    row = {"model": "FTRagRec", "seed": 1, **row}
    return read_start(place, row, {"warm_start": path and str(path)}, shown)


def test_nothing_is_nothing(tmp_path):
    found = start_of(tmp_path, None)
    assert (found.text, found.seconds) == ("nothing", 0.0)


def test_a_run_of_the_comparison_is_told_where_it_is_shown_only(tmp_path):
    folder = result(tmp_path / "runs" / "DuoRec-tiny-1-abc")
    found = start_of(tmp_path, folder, {"runs/DuoRec-tiny-1-abc"})
    assert (found.text, found.seconds) == ("DuoRec of the same seed", 7.0)
    assert start_of(tmp_path, folder).text == f"{folder} (DuoRec, seed 1)"
    moved = start_of(tmp_path, "/gone/runs/DuoRec-tiny-1-abc", {"runs/DuoRec-tiny-1-abc"})
    assert moved.text == "DuoRec of the same seed"


def test_one_that_was_trained_for_it_is_of_its_seed(tmp_path):
    folder = result(tmp_path / "pretrained" / "DuoRec-tiny-abc")
    assert start_of(tmp_path, folder).text == "DuoRec of the same seed"


def test_another_folder_is_named_with_its_seed(tmp_path):
    folder = result(tmp_path / "elsewhere", seed=9)
    for path in (folder, folder / "best.pt"):
        found = start_of(tmp_path, path)
        assert (found.text, found.seconds) == (f"{path} (DuoRec, seed 9)", 7.0)


def test_a_file_of_unknown_origin_is_its_path_and_costs_what_nobody_knows(tmp_path):
    result(tmp_path)
    found = start_of(tmp_path, tmp_path / "theirs.pth")
    assert (found.text, found.seconds) == (str(tmp_path / "theirs.pth"), None)
    (tmp_path / "result.json").write_text("[")
    assert start_of(tmp_path, tmp_path / "best.pt").seconds is None


def runs_of(place):
    return {one.name: one for one in read_runs(place, read_plan(place))}


def test_what_goes_on_counts_its_own_epochs_alone(finished):
    runs = runs_of(finished)
    base, more = runs["DuoRec"], runs["DuoRec (as many more epochs)"]
    own = RunLog(finished / more.row["folder"]).read()[base.n_epochs :]
    spent = sum(one["train_seconds"] + one["valid_seconds"] for one in own)
    assert more.n_epochs == len(own) == runs["FTRagRec"].n_epochs > 0
    assert more.seconds == pytest.approx(spent)
    assert more.seconds_in_all == pytest.approx(spent + base.seconds)
    assert more.start.text == "the finished DuoRec of the same seed"
    assert runs["FTRagRec"].seconds_in_all > runs["FTRagRec"].seconds


def test_a_model_with_a_warm_start_is_no_baseline_wherever_it_started(finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished, place)
    for row in read_plan(place):
        if row["name"] == "FTRagRec":
            path = place / row["folder"] / "result.json"
            content = json.loads(path.read_text())
            content["warm_start"] = None
            content["best_valid"] = dict.fromkeys(content["best_valid"], 1.0)
            path.write_text(json.dumps(content))
    data = Analysis(read_runs(place, read_plan(place)))
    assert data.best != "FTRagRec"


def test_a_cost_that_is_not_known_is_not_shown_as_one(finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished, place)
    for row in read_plan(place):
        if row["name"] == "FTRagRec":
            path = place / row["folder"] / "result.json"
            content = {**json.loads(path.read_text()), "warm_start": "/data/theirs.pth"}
            path.write_text(json.dumps(content))
    data = Analysis(read_runs(place, read_plan(place)))
    assert math.isnan(data.runs["FTRagRec"][0].seconds_in_all)
    shown = {row[0]: row[2] for row in tables.cost(data)}
    assert shown["FTRagRec"] == "unknown" and shown["DuoRec"] != "unknown"
    (starts,) = [row[1] for row in tables.equal(data) if row[0] == "starts from"]
    assert "/data/theirs.pth: FTRagRec;" in starts
