"""The command line: its forms, the folder of a run, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from recbole_ext import doctor, quick_start
from recbole_ext.cli import USAGE, main
from recbole_ext.run_folder import plain
from recbole_ext.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_ext.types import UserError

ARCHITECTURE = {
    "config.yaml",
    "result.json",
    "metrics.jsonl",
    "best.pt",
    "last.pt",
    "train.log",
    "curves.png",
    "per_user.parquet",
}
"""Files of every run folder."""

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Runs the command line in an empty folder; gives exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def tiny(tiny_settings: dict[str, Any]) -> list[str]:
    """Arguments of a run that takes a second."""
    names = ("data_path", "load_col", "topk", "valid_metric", "seed")
    settings = {name: tiny_settings[name] for name in names}
    settings.update(embedding_size=8, epochs=1, use_gpu=False)
    pairs = [f"--{key}={json.dumps(value)}" for key, value in settings.items()]
    return ["--model=BPR", "--dataset=tiny", *pairs]


# ---- forms


def test_help_and_version(call: Call) -> None:
    assert call() == (2, USAGE + "\n", "")
    for arguments in (["-h"], ["--help"], ["help"]):
        assert call(*arguments) == (0, USAGE + "\n", "")
    for command, own, others in (
        ("run", "--resume=", "--seeds="),
        ("compare", "--seeds=", "doctor"),
    ):
        code, out, err = call(command, "--help")
        assert (code, err) == (0, "") and out.startswith(f"usage: recbole-ext {command} ")
        assert own in out and others not in out
    code, out, _ = call("--version")
    assert code == 0 and re.fullmatch(r"recbole_ext \d+\.\d+\.\d+\n", out)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """What the command line asks the runner for; nothing is run."""
    calls: list[tuple[tuple, dict]] = []
    result = {"model": "BPR", "test": {"ndcg@10": 0.5}, "mask_history": True, "seed": 1}
    result.update(seconds={"train": 1.0}, peak_memory_gib={"train": 1.0}, folder="runs/x")

    def run(*args: Any, **kwargs: Any) -> dict[str, Any]:
        calls.append((args, kwargs))
        return result

    monkeypatch.setattr(quick_start, "run", run)
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model=BPR", "--dataset=tiny", "--config_files=a.yaml b.yaml", "--epochs=5"],
        ["-m", "BPR", "-d", "tiny", "--config_files", "a.yaml", "b.yaml", "--epochs=5"],
        ["--epochs=5", "--config_files", "a.yaml b.yaml", "--dataset", "tiny", "--model", "BPR"],
        ["-m=BPR", "-d=tiny", "--model=BPR", "--config_files=a.yaml b.yaml", "--epochs=5"],
    ],
)
def test_every_form_of_an_argument_is_taken(
    arguments: list[str], call: Call, asked: list[tuple[tuple, dict]]
) -> None:
    code, out, _ = call("run", *arguments)
    assert code == 0 and "run folder: runs/x" in out
    files = ["a.yaml", "b.yaml"]
    assert asked == [(("BPR", "tiny", files), {"overrides": ["--epochs=5"]})]


def test_a_resume_needs_the_folder_alone_and_takes_settings(
    call: Call, asked: list[tuple[tuple, dict]]
) -> None:
    assert call("run", "--resume=runs/x", "--epochs=9")[0] == 0
    assert asked == [((), {"resume": "runs/x", "overrides": ["--epochs=9"]})]


def test_an_output_folder_may_be_spaced(call: Call, asked: list[tuple[tuple, dict]]) -> None:
    call("run", "-m", "BPR", "-d", "tiny", "--output_dir", "there")
    assert asked[0][1] == {"overrides": ["--output_dir=there"]}


def test_an_interruption_is_130_and_says_how_to_go_on(
    call: Call, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quick_start.Run, "go", interrupt)
    code, _, err = call("run", "--model=BPR", "--output_dir=there", *tiny)
    assert code == 130 and "--resume=there" in err and "Traceback" not in err
    monkeypatch.setattr(quick_start, "run", interrupt)
    code, _, err = call("run", "--model=BPR", *tiny)
    assert code == 130 and "the run had not begun: give it once more" in err


def test_sigterm_has_a_last_word_too(
    call: Call, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL

    def end(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(quick_start.Run, "go", end)
    code, _, err = call("run", "--model=BPR", "--output_dir=there", *tiny)
    assert code == 143 and err.strip() == "recbole-ext: interrupted; continue with --resume=there"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("found", [None, "1.2.0"])
def test_without_the_right_recbole_the_remedy_is_said(
    found: str | None, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version_of", lambda name: found)
    for command in (["run", "--model=BPR", "--dataset=tiny"], ["explain", "--run=x", "--user=1"]):
        code, _, err = call(*command)
        assert code == 2 and "recbole" in err and "==1.2.1" in err and "Traceback" not in err
        assert ("1.2.0 is not 1.2.1" if found else "is not installed") in err


def test_a_bug_is_not_taken_for_bad_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_start, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("run", "-m", "BPR", "-d", "tiny")


# ---- the run folder


def test_a_run_leaves_all_that_architecture_names(
    call: Call, tiny: list[str], tmp_path: Path
) -> None:
    code, out, err = call("run", *tiny)
    assert code == 0 and "Traceback" not in err
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(rf"BPR-tiny-\d{{8}}-\d{{6}}-{os.getpid()}", folder.name)
    assert f"run folder: runs/{folder.name}" in out
    names = {path.name for path in folder.iterdir()}
    assert names - {"tensorboard", ".lock"} == ARCHITECTURE
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}, "nothing beside it"
    result = json.loads((folder / "result.json").read_text())
    assert (result["model"], result["dataset"]) == ("BPR", "tiny")
    for part in ("best_valid", "test", "seconds", "peak_memory_gib"):
        assert result[part] and {type(value) for value in result[part].values()} == {float}
    assert "ndcg@10" in result["test"] and "numpy" in result["versions"]
    assert re.fullmatch("[0-9a-f]{64}", result["dataset_fingerprint"])
    shown = out.splitlines()[1:3]
    assert shown[0].split() == ["test", *result["test"]]
    assert shown[1].split() == ["BPR", *(f"{value:.4f}" for value in result["test"].values())]
    assert len(pd.read_parquet(folder / "per_user.parquet")) > 0
    torch.load(folder / "best.pt", weights_only=True)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings["epochs"] == 1 and settings["output_dir"] is None, "good for another run"
    assert "\x1b" not in (folder / "train.log").read_text()


def test_config_yaml_runs_again_with_the_same_result(
    call: Call, tiny: list[str], tmp_path: Path
) -> None:
    assert call("run", *tiny, "--output_dir=one")[0] == 0
    assert call("run", "--config_files=one/config.yaml", "--output_dir=two")[0] == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["dataset_fingerprint"] == results[1]["dataset_fingerprint"]


def test_a_folder_that_holds_a_run_is_kept(call: Call, tiny: list[str], tmp_path: Path) -> None:
    assert call("run", *tiny, "--output_dir=one")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir() if p.is_file()}
    code, _, err = call("run", *tiny, "--output_dir=one")
    assert code == 2
    assert err == (
        "recbole-ext: one already holds a run; continue it with --resume=one, "
        "or name another --output_dir\n"
    )
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir() if p.is_file()}


def test_the_folder_of_a_comparison_takes_no_run(
    call: Call, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "plan.json").write_text("[]")
    code, _, err = call("run", *tiny, "--output_dir=one")
    assert code == 2
    assert err == "recbole-ext: one holds a comparison (plan.json); name another --output_dir\n"
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["plan.json"]


def test_a_settings_file_may_have_a_space_in_its_name(
    call: Call, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mein läden.yaml").write_text("epochs: three")
    code, _, err = call("run", *tiny[:2], "--config_files=mein läden.yaml")
    assert (code, err) == (2, "recbole-ext: epochs takes int, not 'three'\n")


def test_a_folder_with_a_file_that_a_run_would_overwrite_is_kept(
    call: Call, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "result.json").write_text("mine")
    (tmp_path / "one" / "notes.md").write_text("mine too")
    code, _, err = call("run", *tiny, "--output_dir=one")
    assert code == 2
    assert "one has a result.json that is of no run, and that a run would overwrite; name" in err
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"result.json", "notes.md"}
    assert (tmp_path / "one" / "result.json").read_text() == "mine"


def test_a_mistake_leaves_no_folder_in_the_way(call: Call, tiny: list[str], tmp_path: Path) -> None:
    for mistake in ("--dataset=tinny", "--callbacks=[NoSuch]", "--epochs=x"):
        arguments = [a for a in tiny if a.split("=")[0] != mistake.split("=")[0]]
        assert call("run", *arguments, mistake, "--output_dir=one")[0] == 2
        assert not (tmp_path / "one").exists()


def test_numbers_of_a_result_are_plain() -> None:
    import numpy as np

    value = {"a": np.float64(0.5), "b": [torch.tensor(2), np.nan], "c": float("inf"), 3: Path("x")}
    assert plain(value) == {"a": 0.5, "b": [2, None], "c": None, "3": "x"}
    assert json.loads(json.dumps(plain(value))) == plain(value)


# ---- what is wrong

BAD = "epochs: [1, 2\n"
WRONG: dict[str, tuple[list[str], str]] = {
    "an unknown command": (["rum"], "unknown command 'rum'; did you mean 'run'?"),
    "no command at all": (["--model=BPR"], "unknown command '--model=BPR'; the commands are run"),
    "no model": (["run"], "no model is named; give --model=SASRec"),
    "no dataset": (["run", "-m", "BPR"], "no dataset is named; give --dataset=ml-100k"),
    "a model without its value": (["run", "--model"], "--model needs a value: --model=..."),
    "a setting without its value": (["run", "--epochs", "5"], "argument '--epochs' is not underst"),
    "a word alone": (["run", "-m", "BPR", "-d", "tiny", "fast"], "argument 'fast' is not underst"),
    "two models": (
        ["run", "--model=BPR", "-m", "SASRec"],
        "--model is given twice, as 'BPR' and as 'SASRec'; keep one",
    ),
    "an unknown model": (["run", "-m", "SASRek", "-d", "tiny"], "unknown model 'SASRek'; did you"),
    "an outside model that is not": (
        ["run", "-m", "no_pkg:Model", "-d", "tiny"],
        "model 'no_pkg:Model': cannot import 'no_pkg'",
    ),
    "an unknown dataset": (["run", "-m", "BPR", "-d", "tinny"], "dataset 'tinny': there is no fol"),
    "an unknown key": (["run", "TINY", "--epoch=3"], "unknown setting 'epoch'; did you mean"),
    "a key twice": (["run", "TINY", "--seed=1"], "--seed is given twice, as 2020 and as 1"),
    "a wrong type": (
        ["run", "TINY", "--stopping_step=soon"],
        "stopping_step takes int, not 'soon'",
    ),
    "an unknown metric": (
        ["run", "TINY", "--metrics=[NDGC]"],
        "metrics: there is no metric 'NDGC'",
    ),
    "an unknown optimizer": (["run", "TINY", "--learner=adan"], "learner takes one of adam, "),
    "an unknown callback": (["run", "TINY", "--callbacks=[Chekpoint]"], "unknown callback 'Chekp"),
    "a wrong callback argument": (
        ["run", "TINY", "--callbacks=[{Checkpoint: {evry: 2}}]"],
        "Checkpoint has no argument 'evry'",
    ),
    "no such settings file": (
        ["run", "TINY", "--config_files=none.yaml"],
        "cannot read the settings file none.yaml: No such file",
    ),
    "a bad settings file": (
        ["run", "TINY", "--config_files=bad.yaml"],
        "bad.yaml, line 2: not val",
    ),
    "a folder that cannot be": (
        ["run", "TINY", "--output_dir=bad.yaml/run"],
        "cannot write into the folder bad.yaml/run: Not a directory; choose another --output_dir",
    ),
    "a resume of nothing": (["run", "--resume=none"], "--resume=none: there is no run in that fol"),
    "a resume with a model": (
        ["run", "--resume=none", "-m", "BPR"],
        "--resume takes model, dataset and settings from the run folder; leave out --model",
    ),
    "a resume elsewhere": (
        ["run", "--resume=none", "--output_dir=there"],
        "--resume writes into the run folder itself; leave out --output_dir",
    ),
    "too many filters": (
        ["run", "TINY", "--user_inter_num_interval=[99,inf)"],
        "dataset 'tiny' in ",
    ),
    "columns that are not": (["run", "TINY", "--USER_ID_FIELD=customer"], "no column 'customer'"),
    "a setting's value behind a space": (
        ["run", "TINY", "--epochs", "5"],
        "argument '--epochs' is not understood; settings are written --epochs=5",
    ),
    "a value without dashes": (
        ["run", "TINY", "epochs=5", "topk=[1]"],
        "argument 'epochs=5' is not understood; settings are written --epochs=5",
    ),
    "one dash": (["run", "TINY", "-epochs", "5"], "settings are written --key=value"),
    "a list without its end": (
        ["run", "TINY", "--topk=[5"],
        "--topk is no YAML: [5; a bracket is not ",
    ),
    "settings files with a comma": (
        ["run", "TINY", "--config_files=none.yaml, bad.yaml"],
        "none.yaml,: No such file or directory; several files are separated by spaces",
    ),
    "one settings file": (
        ["run", "TINY", "--config_file=bad.yaml"],
        "config_file is read by nothing; settings files are named by --config_files",
    ),
    "a resume of an empty name": (["run", "--resume="], "--resume is empty; give the run folder"),
    "an explanation of nothing": (
        ["explain", "--run=none"],
        "explain needs --user: recbole-ext explain --run=<run folder> --user=<user token>",
    ),
    "an explanation of too much": (
        ["explain", "--run=none", "--user=u1", "--topn=5"],
        "explain takes no '--topn=5'; it takes --run, --user, --k",
    ),
    "slices of nothing": (["slices"], "slices needs --run: recbole-ext slices --run=<run folder>"),
    "a doctor with a wish": (["doctor", "--verbose"], "doctor takes no '--verbose'; it takes noth"),
    "an explanation without a run": (
        ["explain", "--run=none", "--user=u1"],
        "none holds no run (no config.yaml)",
    ),
    "k of none": (
        ["explain", "--run=x", "--user=u1", "--k=few"],
        "--k takes a number of neighbours",
    ),
    "k of a digit that is no number": (
        ["explain", "--run=x", "--user=u1", "--k=²"],
        "--k takes a number of neighbours",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    case: str, call: Call, tiny: list[str], tmp_path: Path
) -> None:
    arguments, sentence = WRONG[case]
    (tmp_path / "bad.yaml").write_text(BAD)
    full = [b for a in arguments for b in (tiny if a == "TINY" else [a])]
    code, _, err = call(*full)
    assert code == 2
    assert "Traceback" not in err
    *log, last = err.splitlines()
    assert last.startswith("recbole-ext: ") and sentence in last
    assert all(re.match(r"\d{4}-\d\d-\d\d .* (INFO|WARNING) ", line) for line in log)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "is damaged, cut short, or no"),
        (lambda path: path.write_text("no checkpoint"), "is damaged, cut short, or no checkpoint"),
        (lambda path: torch.save({"state_dict": {}}, path), "is no checkpoint of this package"),
    ],
    ids=["truncated", "text", "foreign"],
)
def test_a_resume_from_a_file_that_will_not_do_is_one_sentence(
    damage: Callable[[Path], None], sentence: str, call: Call, tiny: list[str], tmp_path: Path
) -> None:
    assert call("run", *tiny, "--output_dir=one")[0] == 0
    best = (tmp_path / "one" / "best.pt").read_bytes()
    damage(tmp_path / "one" / "last.pt")
    code, _, err = call("run", "--resume=one")
    assert code == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("recbole-ext: one/last.pt") and sentence in err
    assert (tmp_path / "one" / "best.pt").read_bytes() == best


def test_a_resume_on_other_data_or_settings_is_refused(
    call: Call, tiny: list[str], tmp_path: Path, tiny_data_path: Path
) -> None:
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    inter = tmp_path / "data" / "tiny" / "tiny.inter"
    inter.write_bytes((tiny_data_path / "tiny" / "tiny.inter").read_bytes())
    tiny = [a for a in tiny if not a.startswith("--data_path")] + ["--data_path=data"]
    assert call("run", *tiny, "--output_dir=one")[0] == 0
    code, _, err = call("run", "--resume=one", "--embedding_size=16")
    assert code == 2 and "--resume keeps the settings of the run, embedding_size" in err
    inter.write_text(inter.read_text().replace("i7\t", "j7\t"))
    code, _, err = call("run", "--resume=one")
    assert code == 2 and "was trained on other items" in err.splitlines()[-1]


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a few KiB, where this machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("disk", [16, 100, 150], indirect=True)
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    disk: Path, call: Call, tiny: list[str]
) -> None:
    """At the beginning, and at two places in the middle."""
    tiny = [a for a in tiny if not a.startswith(("--epochs", "--embedding_size"))]
    more = ["--epochs=40", "--embedding_size=64", f"--output_dir={disk}/x"]
    code, _, err = call("run", *tiny, *more)
    assert code == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("recbole-ext: ") and "No space left" in err
    for path in (disk / "x").glob("*.pt"):
        torch.load(path, weights_only=True)
    assert not list((disk / "x").glob(".*.tmp"))


@pytest.mark.parametrize("disk", [300], indirect=True)
def test_a_checkpoint_that_does_not_fit_says_that_the_disk_is_full(disk: Path) -> None:
    write_checkpoint(disk / "best.pt", {"weights": torch.ones(1000)})
    with pytest.raises(UserError, match="No space left on device; free space"):
        write_checkpoint(disk / "best.pt", {"weights": torch.zeros(100_000)})
    assert read_checkpoint(disk / "best.pt")["weights"].sum() == 1000
    assert [path.name for path in disk.iterdir()] == ["best.pt"]
