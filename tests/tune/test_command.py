"""``recbole-ext tune``: bad input is one sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from recbole_ext.cli import main
from recbole_ext.tune import command

GOOD = "learning_rate: {loguniform: [1e-4, 1e-2]}\n"


@pytest.fixture
def told(
    tiny_data_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Gives what the command says of a space and further arguments, which must be refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "need_optuna", lambda: None)  # nothing comes to it here

    def refused(space: str, *arguments: str) -> str:
        (tmp_path / "space.yaml").write_text(space)
        common = ["tune", "--model=BPR", "--dataset=tiny", f"--data_path={tiny_data_path}"]
        assert main([*common, "--use_gpu=False", *arguments]) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err

    return refused


@pytest.mark.parametrize(
    ("space", "arguments", "complaint"),
    [
        (
            "learnin_rate: {uniform: [0, 1]}",
            [],
            "space.yaml: unknown setting 'learnin_rate'; did you mean 'learning_rate'",
        ),
        ("n_layers: {int: [1, 2]}", [], "'n_layers' is a setting of"),
        ("embedding_size: {uniform: [8, 16.5]}", [], "space.yaml: embedding_size takes int"),
        ("embedding_size: {quniform: [8, 64, 8]}", [], "space.yaml: embedding_size takes int"),
        (
            "callbacks: {choice: [[{EarlyStop: {metric: ndcg@10}}], [{EarlyStp: {}}]]}",
            [],
            "EarlyStp",
        ),
        ("learning_rate: {uniform: [0, 0.1]}", [], "learning_rate must be greater than 0"),
        (
            "learning_rate: {uniform: [0.1, 0.01]}",
            [],
            "upside down or empty, [0.1, 0.01]; write [0.01, 0.1]",
        ),
        (GOOD, ["--valid_metric=NDCG@7"], "valid_metric 'NDCG@7' is not computed"),
        (
            GOOD,
            ["--learning_rate=0.1"],
            "learning_rate is searched (space.yaml) and given as --learning_rate",
        ),
        (
            "train_neg_sample_args: {choice: [{sample_num: 1}, {sample_num: 2}]}",
            ["--train_neg_sample_args.sample_num=3"],
            "train_neg_sample_args is searched (space.yaml) and given as --train_neg_sample_args.s",
        ),
        (GOOD, ["--eval_step=0"], "eval_step is 0: no epoch would be validated"),
        (GOOD, ["--epochs=2", "--eval_step=3"], "eval_step is 3 and epochs 2: no epoch would be"),
        ("epochs: {int: [1, 9]}", ["--eval_step=3"], "eval_step is 3 and epochs 1: no epoch would"),
        (GOOD, ["--nproc=2"], "nproc: a trial is trained in one process"),
        (GOOD, ["--trials=0"], "--trials takes a number from 1 up, not '0'"),
        (GOOD, ["--prune=perhaps"], "--prune takes True or False, not 'perhaps'"),
        (GOOD, ["--epoch=3"], "unknown setting 'epoch'; did you mean 'epochs'"),
    ],
)
def test_a_mistake_is_one_sentence(told, space, arguments, complaint):
    assert complaint in told(space, "--space=space.yaml", *arguments)


def test_without_a_space_the_command_says_how_it_is_written(told):
    assert "tune needs --space: recbole-ext tune --model=BPR" in told(GOOD)


def test_a_folder_of_a_run_is_refused(told, tiny_data_path):
    place = tiny_data_path / "a_run"
    place.mkdir(exist_ok=True)
    (place / "config.yaml").write_text(json.dumps({}))
    said = told(GOOD, "--space=space.yaml", f"--output_dir={place}")
    assert f"{place} holds a run (config.yaml); name another --output_dir" in said


def test_ctrl_c_says_how_it_goes_on(tiny_data_path, tmp_path, monkeypatch, capsys):
    def stopped(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "need_optuna", lambda: None)
    monkeypatch.setattr(command, "search", stopped)
    (tmp_path / "space.yaml").write_text(GOOD)
    common = ["tune", "--model=BPR", "--dataset=tiny", f"--data_path={tiny_data_path}"]
    assert main([*common, "--use_gpu=False", "--space=space.yaml"]) == 130
    assert "interrupted; give the same command once more" in capsys.readouterr().err


def test_optuna_is_missed_late_and_by_name(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["tune", "--space=space.yaml"]) == 2
    assert capsys.readouterr().err == (
        "recbole-ext: tune needs optuna; run: pip install 'recbole-ext[tune]'\n"
    )
