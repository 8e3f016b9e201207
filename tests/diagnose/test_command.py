"""The command: exit codes, its three reports, refusals; healthy runs pass."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from diagnose.conftest import subject_of

from recbole_ext.cli import main
from recbole_ext.diagnose import calibration, embeddings
from recbole_ext.diagnose.check import FAIL, SEVERITIES, WARN, Section
from recbole_ext.diagnose.command import GROUPS, diagnosed
from recbole_ext.diagnose.report import terminal, worst_of


@pytest.mark.parametrize("name", ["ranking_run", "click_run"])
def test_a_healthy_run_passes_and_has_its_reports(name, request, capsys):
    folder = request.getfixturevalue(name)
    capsys.readouterr()
    assert main(["diagnose", f"--run={folder}", "--steps=30"]) == 0
    out = capsys.readouterr().out
    found = json.loads((folder / "diagnose.json").read_text())
    assert [one["group"] for one in found["groups"]] == [group.TITLE for group in GROUPS]
    assert found["severity"] != FAIL and found["dataset"] in ("tiny", "clicks")
    checks = [check for group in found["groups"] for check in group["checks"]]
    for one in checks:
        assert set(one) == {"name", "value", "threshold", "severity", "advice"}
        assert one["severity"] in SEVERITIES and one["advice"].endswith("."), one
        assert one["name"] in out
    page = (folder / "diagnose.html").read_text()
    assert "<svg" in page and "prefers-color-scheme:dark" in page
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org)|<script", page)


def test_a_failure_is_exit_code_1(ranking_run, tmp_path, capsys):
    """The folder says another test than the model has: its data or weights are others."""
    folder = tmp_path / "run"
    shutil.copytree(ranking_run, folder)
    result = json.loads((folder / "result.json").read_text())
    result["test"]["ndcg@10"] += 0.2
    (folder / "result.json").write_text(json.dumps(result))
    assert main(["diagnose", f"--run={folder}", "--steps=10"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  largest difference from result.json: 0.2" in out and "Restore the data" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "recbole-ext diagnose needs --run=...; see recbole-ext diagnose --help"),
        (["--run=nothing"], "nothing holds no run (no config.yaml); a run folder is meant"),
        (["--run=x", "--stpes=3"], "has no --stpes; did you mean 'steps'?"),
        (["--run=x", "--steps=3"], "--steps takes a number from 10 up, not 3"),
        (["--run=x", "--steps=many"], "--steps takes int, not 'many'"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys):
    assert main(["diagnose", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_help_names_the_options(capsys):
    assert main(["diagnose", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--run" in out and "--steps" in out


def test_a_group_that_breaks_fails_and_ends_no_other(ranking_run):
    class Broken:
        TITLE = "Broken"

        @staticmethod
        def check(subject, section):
            raise KeyError("item_id")

    broken, sound = diagnosed(subject_of(ranking_run), [Broken, embeddings])
    assert broken.checks[0].severity == FAIL and "KeyError" in str(broken.checks[0].value)
    assert worst_of([sound]) != FAIL and len(sound.checks) > 3


def test_what_does_not_apply_says_why(ranking):
    (section,) = diagnosed(ranking, [calibration])
    (one,) = section.checks
    assert one.severity == "SKIP" and one.value is None
    assert "no probabilities" in one.advice
    assert "SKIP  all: scores rank items" in terminal("title", [section])


def test_thresholds_have_two_steps_and_nan_is_a_failure():
    section = Section("s")
    for value in (0.0, 0.2, 0.9, float("nan")):
        section.at_most("high", value, 0.1, 0.5, "Do it.")
        section.at_least("low", 1 - value, 0.9, 0.5, "Do it.")
    assert [one.severity for one in section.checks[::2]] == ["OK", WARN, FAIL, FAIL]
    assert [one.severity for one in section.checks[1::2]] == ["OK", WARN, FAIL, FAIL]


def test_a_run_without_a_test_is_refused(ranking, tmp_path: Path):
    from recbole_ext.diagnose.subject import Subject
    from recbole_ext.types import UserError

    class Empty:
        _dataset = type("Part", (), {"inter_feat": []})

    ranking.run.test_data = Empty
    with pytest.raises(UserError, match="has no test split"):
        Subject(ranking.run)
