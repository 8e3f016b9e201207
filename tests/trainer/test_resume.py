"""A run that is killed with SIGKILL, anywhere, and resumed ends as the one that was not killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_ext.cli import main
from recbole_ext.trainer.checkpoint import read_checkpoint
from tests.conftest import ROOT

MODELS: dict[str, dict[str, Any]] = {
    "BPR": {
        "embedding_size": 8,
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
    },
    "SASRec": {"hidden_size": 8, "inner_size": 16, "n_layers": 1},
    "LRURec": {"hidden_size": 8, "inner_size": 16, "train_batch_size": 8, "eval_step": 1},
    "BERT4RecCloze": {
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "train_batch_size": 8,
        "eval_step": 1,
    },
    "FTRagRec": {
        "hidden_size": 8,
        "inner_size": 16,
        "n_layers": 1,
        "pretrain_epochs": 2,
        "train_batch_size": 32,
    },
}

# Kills its own process at the n-th call of a function: no clock, no luck.
DRIVER = """
import os, signal, sys
import recbole_ext
from recbole_ext.cli import main
place, count, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

def kill_at(owner, name, before=True):
    original, calls = getattr(owner, name), [0]
    def wrapper(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count:
            if place == "write":  # half of the file is on the disk
                with open(args[0].with_name(f".{args[0].name}.{os.getpid()}.tmp"), "wb") as stream:
                    stream.write(b"half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, wrapper)

if place == "batch":
    from recbole_ext.trainer.batch_hooks import BatchHooks
    kill_at(BatchHooks, "_after_step")
elif place == "evaluation":
    from recbole_ext.trainer.hooked_trainer import RunHooks
    kill_at(RunHooks, "_full_sort_batch_eval")
elif place == "write":
    from recbole_ext.trainer import checkpoint
    kill_at(checkpoint, "write_checkpoint")
sys.exit(main(["run", *arguments]))
"""
KILLS = [("batch", 2), ("batch", 11), ("evaluation", 4), ("write", 1), ("write", 6), ("write", 2)]


def start(
    arguments: list[str], cwd: Path, place: str = "never", count: int = 0
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", DRIVER, place, str(count), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def arguments_for(model: str, settings: dict[str, Any], output_dir: str) -> list[str]:
    merged = {**settings, **MODELS[model], "epochs": 4, "stopping_step": 10}
    merged.pop("checkpoint_dir")
    pairs = [f"--{key}={json.dumps(value)}" for key, value in merged.items()]
    return [f"--model={model}", "--dataset=tiny", f"--output_dir={output_dir}", *pairs]


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if not k.endswith("seconds")} for record in records]


CASES = [pytest.param("BPR", KILLS[1:2], id="BPR-one-kill")]
CASES += [pytest.param(model, KILLS, id=model, marks=pytest.mark.slow) for model in MODELS]


@pytest.mark.parametrize(("model", "kills"), CASES)
def test_a_killed_run_ends_as_the_one_that_was_not(
    model: str, kills: list[tuple[str, int]], tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = start(arguments_for(model, tiny_settings, "whole"), tmp_path)
    assert whole.returncode == 0, whole.stderr
    expected = {name: read_checkpoint(tmp_path / "whole" / name) for name in ("best.pt", "last.pt")}
    for place, count in kills:
        folder = tmp_path / f"{place}{count}"
        killed = start(arguments_for(model, tiny_settings, folder.name), tmp_path, place, count)
        assert killed.returncode == -signal.SIGKILL, (place, count, killed.stderr)
        resumed = start([f"--resume={folder.name}"], tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        for name, payload in expected.items():
            ours = read_checkpoint(folder / name)
            assert ours["epoch"] == payload["epoch"] and ours["step"] == payload["step"], (
                place,
                count,
                name,
            )
            assert ours["state_dict"].keys() == payload["state_dict"].keys()
            for key, value in payload["state_dict"].items():
                assert torch.equal(ours["state_dict"][key], value), (place, count, name, key)
        assert epochs_of(folder) == epochs_of(tmp_path / "whole"), (place, count)
        results = [
            json.loads((f / "result.json").read_text()) for f in (folder, tmp_path / "whole")
        ]
        assert results[0]["test"] == results[1]["test"]
        assert not list(folder.glob(".*.tmp"))


def test_resuming_a_finished_run_changes_nothing(
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments_for("BPR", tiny_settings, "run")]) == 0
    before = {
        p.name: p.read_bytes()
        for p in (tmp_path / "run").iterdir()
        if p.name in ("best.pt", "last.pt")
    }
    capsys.readouterr()
    assert main(["run", "--resume=run"]) == 0
    after = {name: (tmp_path / "run" / name).read_bytes() for name in before}
    assert before == after
    assert "run folder: run" in capsys.readouterr().out
