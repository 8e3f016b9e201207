"""A comparison of two models and two seeds on the tiny data: run, killed, continued, reported."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from recbole_ext.compare import runner
from recbole_ext.compare.collect import read_plan, read_runs
from recbole_ext.compare.plan import plan, seeds_of
from recbole_ext.compare.report import write_report
from recbole_ext.types import UserError


@pytest.fixture
def overrides(tiny_settings, tmp_path):
    settings = {
        k: v for k, v in tiny_settings.items() if k not in ("seed", "train_neg_sample_args")
    }
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump({**settings, "epochs": 1, "metrics": ["Recall", "NDCG"]}))
    return path


def test_seeds():
    assert seeds_of("3") == [2020, 2021, 2022]
    assert seeds_of("1,5") == [1, 5]
    for bad in ("", "0", "a", "1,1"):
        with pytest.raises(UserError, match="--seeds"):
            seeds_of(bad)


def test_a_comparison_is_continued_and_reported(overrides, tmp_path, monkeypatch):
    place = tmp_path / "compare"
    runs = plan(["Pop", "BPR"], ["tiny"], [2020, 2021], place, overrides)
    with monkeypatch.context() as patch:
        real = subprocess.Popen.communicate
        calls = []

        def interrupted(child, *arguments, **options):
            calls.append(child)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(child, *arguments, **options)

        patch.setattr(subprocess.Popen, "communicate", interrupted)
        with pytest.raises(KeyboardInterrupt, match="goes on"):
            runner.run_all(runs, place)
    assert [runner.is_done(one.folder) for one in runs] == [True, False, False, False]
    lines = []
    assert runner.run_all(runs, place, lines.append) == {}
    assert "done before" in lines[0]
    assert all(runner.is_done(one.folder) for one in runs)
    done = read_runs(place, read_plan(place))
    assert [one.not_reproduced() for one in done if one.model == "BPR"] == [{}, {}]
    assert "BPR" in write_report(place)
    assert "<svg" in (place / "report.html").read_text()
    assert len((place / "results.csv").read_text().splitlines()) == 1 + 4 * 4


def test_unequal_rankings_are_refused_before_anything_runs(overrides, tmp_path):
    content = yaml.safe_load(overrides.read_text())
    overrides.write_text(yaml.safe_dump({**content, "models": {"BPR": {"mask_history": True}}}))
    with pytest.raises(UserError, match="mask_history"):
        plan(["Pop", "BPR"], ["tiny"], [2020], tmp_path, overrides)


def test_unknown_models_get_a_suggestion(overrides, tmp_path):
    overrides.write_text("models: {BPRR: {epochs: 1}}")
    with pytest.raises(UserError, match="did you mean 'BPR'"):
        plan(["Pop", "BPR"], ["tiny"], [2020], tmp_path, overrides)
