"""What training leaves in the run folder: a line per epoch, curves, and the best weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import recbole.trainer.trainer as host
import torch

from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.trainer.run_log import RunLog
from tests.trainer.training import prepare, records


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return {**tiny_settings, "train_batch_size": 128, "epochs": 2}


def test_every_epoch_has_its_line_and_the_curves_are_drawn(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run = prepare("SASRec", {**settings, "epochs": 3, "eval_step": 2}, folder)
    _, result = run.fit()
    lines = records(folder)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    keys = {"epoch", "losses", "train_seconds", "valid_seconds", "valid"}
    assert all(line.keys() == keys and line["train_seconds"] > 0 for line in lines)
    assert [line["valid"] is None for line in lines] == [True, False, True]
    assert [line["valid_seconds"] is None for line in lines] == [True, False, True]
    assert lines[1]["valid"] == json.loads(json.dumps(result))
    assert (folder / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list((folder / "tensorboard").glob("events.*"))


def test_without_validation_the_last_epoch_is_the_best(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    for name, more in (("step0", {"eval_step": 0}), ("none", {})):
        folder = tmp_path / name
        run = prepare("BPR", {**settings, **more}, folder)
        run.trainer.fit(run.train, run.valid if more else None)
        assert [line["valid"] for line in records(folder)] == [None, None]
        best, last = (read_checkpoint(folder / file) for file in ("best.pt", "last.pt"))
        assert best["epoch"] == last["epoch"] == 1
        weights = run.model.state_dict()
        assert all(torch.equal(best["state_dict"][key], weights[key]) for key in weights)


def test_no_epochs_keep_the_untrained_model(settings: dict[str, Any], tmp_path: Path) -> None:
    run = prepare("BPR", {**settings, "epochs": 0}, tmp_path / "run")
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    run.fit()
    kept = read_checkpoint(tmp_path / "run" / "best.pt")["state_dict"]
    assert all(torch.equal(kept[key], before[key]) for key in before)
    assert run.trainer.evaluate(run.test)


def test_the_test_is_on_the_best_epoch(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("BPR", {**settings, "epochs": 3, "learning_rate": 0.1}, tmp_path / "run")
    weights: list[torch.Tensor] = []
    values = iter([0.1, 0.9, 0.5])

    def score(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        weights.append(run.model.item_embedding.weight.detach().clone())
        return {"ndcg@10": next(values)}

    with monkeypatch.context() as patch:
        patch.setattr(host.Trainer, "evaluate", score)
        best_score, _ = run.fit()
    assert best_score == 0.9
    assert torch.equal(run.model.item_embedding.weight, weights[2])
    first = run.trainer.evaluate(run.test)
    assert torch.equal(run.model.item_embedding.weight, weights[1])
    with torch.no_grad():
        run.model.item_embedding.weight.zero_()
    assert run.trainer.evaluate(run.test) == first
    assert run.trainer.evaluate(run.test, load_best_model=False) == first  # it has been loaded
    assert {type(value) for value in first.values()} == {float}


def test_records_that_are_lost_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = {"losses": {}, "train_seconds": 1.0, "valid_seconds": None, "valid": None}
    log = RunLog(tmp_path)
    for epoch in (0, 2):
        log.write({"epoch": epoch, **record})
    log.rewind(2)
    assert "metrics.jsonl has records of 2 of 3 epochs" in caplog.text
    caplog.clear()
    log.rewind(0)
    assert [one["epoch"] for one in log.read()] == [0] and not caplog.text


def test_records_of_a_run_killed_before_its_first_checkpoint_are_dropped(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = prepare("BPR", settings, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(
        '{"epoch": 0, "losses": {}, "train_seconds": 1, "valid_seconds": null, "valid": null}\n'
        '{"epo'
    )
    run.fit()
    assert [record["epoch"] for record in records(tmp_path / "run")] == [0, 1]
