"""A folder in which several commands compared: what stays, what goes, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from recbole_ext.compare import runner
from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.plan import plan
from recbole_ext.compare.report import write_report
from recbole_ext.types import UserError
from tests.compare.conftest import in_process, tiny, write_overrides


@pytest.fixture
def compared(tiny_data_path, tmp_path):
    """Compares with settings of its own in one folder; gives the names and seeds of the plan."""
    place = tmp_path / "compare"

    def read(data):
        assert data is not None, "read"
        return data

    def compared(models, seeds, more=(), data=""):
        path = write_overrides(tmp_path / "all.yaml", {**tiny(tiny_data_path), **dict(more)})
        runs = plan(models, ["tiny"], seeds, place, path, fingerprint_of=lambda *_: read(data))
        lines = []
        assert runner.run_all(runs, place, lines.append, in_process) == {}
        rows = {(row["name"], row["seed"]) for row in read_plan(place)}
        return rows, [line for line in lines if line.startswith("no longer")]

    compared.place = place
    return compared


def test_other_seeds_stay_with_the_same_settings_only(compared):
    small, large = ({"models": {"BPR": {"embedding_size": size}}} for size in (4, 8))
    assert compared(["BPR"], [1], small) == ({("BPR", 1)}, [])
    assert compared(["BPR"], [2], small) == ({("BPR", 1), ("BPR", 2)}, [])
    assert compared(["Pop"], [1]) == ({("BPR", 1), ("BPR", 2), ("Pop", 1)}, [])
    rows, (line,) = compared(["BPR"], [2], large)
    assert rows == {("BPR", 2), ("Pop", 1)}
    assert "the folders stay): BPR on tiny, seed 1" in line
    assert len(list((compared.place / "runs").glob("BPR-tiny-*/result.json"))) == 3
    assert "BPR | 1 |" in write_report(compared.place)


def test_rows_without_a_digest_may_be_of_any_settings(compared):
    compared(["Pop"], [1])
    path = compared.place / "plan.json"
    rows = json.loads(path.read_text())
    for row in rows:
        del row["digest"], row["extends"]
    path.write_text(json.dumps(rows))
    assert "| Pop" in write_report(compared.place)
    rows, (line,) = compared(["Pop"], [2])
    assert rows == {("Pop", 2)} and line.endswith("Pop on tiny, seed 1")
    assert compared(["Pop"], [1, 2])[0] == {("Pop", 1), ("Pop", 2)}


def test_controls_go_with_what_they_are_of(finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished, place)
    content = yaml.safe_load((finished / "all.yaml").read_text())
    del content["models"]["BPR"]
    content["models"]["FTRagRec"]["kl_small_weight"] = 0.1
    path = write_overrides(tmp_path / "all.yaml", content)
    fingerprint = json.loads((place / "data" / "tiny.json").read_text())["fingerprint"]
    runs = plan(
        ["DuoRec", "FTRagRec"],
        ["tiny"],
        [2020],
        place,
        path,
        fingerprint_of=lambda *_: fingerprint,
    )
    lines = []
    runner.run_all(runs, place, lines.append, lambda job, log: "broken")
    assert sorted(row["name"] for row in read_plan(place)) == ["BPR", "DuoRec", "FTRagRec", "Pop"]
    assert lines[0].count("2020") == 4 and "DuoRec (as many more epochs)" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "[1/2] DuoRec on tiny, seed 2020",
        "[2/2] FTRagRec on tiny, seed 2020",
    ]
    assert "done before" in lines[1] and "failed: broken" in lines[2]


def test_what_does_not_fit_beside_what_stays_is_refused(compared):
    compared(["Pop", "BPR"], [1])
    for more, sentence in (
        ({"topk": [5, 10, 20]}, r"topk on tiny is \[5, 10\] for the Pop that is there"),
        ({"mask_history": True}, "mask_history on tiny is False for the Pop that is"),
    ):
        with pytest.raises(UserError, match=f"{sentence}.* another --output_dir"):
            compared(["BPR"], [1], more, None)  # and the data are not read
    assert "| Pop" in write_report(compared.place)  # nothing was lost
    rows, (line,) = compared(["BPR", "Pop"], [2], {"topk": [5, 10, 20]})
    assert rows == {("BPR", 2), ("Pop", 2)}  # all of them anew: nothing stays beside them


def test_other_data_beside_what_stays_are_refused(compared):
    compared(["Pop"], [1])
    with pytest.raises(UserError, match="Pop that is there on tiny was run on other data: "):
        compared(["BPR"], [1], data="others")
