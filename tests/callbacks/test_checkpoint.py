from __future__ import annotations

from pathlib import Path

import pytest
import torch
from callbacks.contracts import CallbackContract
from callbacks.loop import assert_same, fit

from recbole_ext.callbacks.checkpoint import Checkpoint
from recbole_ext.trainer import checkpoint
from recbole_ext.types import TrainState, UserError


class TestContract(CallbackContract):
    name, arguments = "Checkpoint", {"every": 1, "keep": 2}
    neutral = {"every": 1}


class TestContractSeldom(CallbackContract):
    name, arguments = "Checkpoint", {"every": 3}
    neutral = {"every": 9}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_snapshot_is_the_model_of_its_epoch(tmp_path: Path) -> None:
    models: list[dict[str, torch.Tensor]] = []

    def keep(state: TrainState, saved: bytes) -> None:
        models.append({k: v.clone() for k, v in state.model.state_dict().items()})

    fit([Checkpoint(every=2)], folder=tmp_path, epochs=5, after_epoch=keep)
    assert names(tmp_path) == ["epoch-1.pt", "epoch-3.pt"]
    for epoch in (1, 3):
        payload = torch.load(tmp_path / f"epoch-{epoch}.pt", weights_only=True)
        assert payload["format"] == "recbole_ext/1" and payload["model"] == "Toy"
        assert (payload["epoch"], payload["step"]) == (epoch, 4 * (epoch + 1))
        assert_same(payload["state_dict"], models[epoch])


def test_the_newest_are_kept_and_only_its_own_deleted(tmp_path: Path) -> None:
    for other in ("best.pt", "last.pt", "epoch-99.pt", "epoch-x.pt"):
        (tmp_path / other).write_text("not mine")
    fit([Checkpoint(keep=2)], folder=tmp_path, epochs=4)
    others = {"best.pt", "last.pt", "epoch-99.pt", "epoch-x.pt"}
    assert set(names(tmp_path)) == others | {"epoch-2.pt", "epoch-3.pt"}


def test_all_are_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    fit([Checkpoint()], folder=tmp_path)
    assert names(tmp_path) == [f"epoch-{epoch}.pt" for epoch in range(4)]


def test_a_resumed_run_goes_on_deleting(tmp_path: Path) -> None:
    saved: list[bytes] = []
    keep = lambda state, data: saved.append(data)  # noqa: E731
    fit([Checkpoint(keep=2)], folder=tmp_path, after_epoch=keep, until=3)
    # Killed in epoch 2, with its snapshot written and its checkpoint not.
    fit([Checkpoint(keep=2)], folder=tmp_path, resume=saved[1])
    assert names(tmp_path) == ["epoch-2.pt", "epoch-3.pt"]


def test_what_was_there_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write_checkpoint

    def full(path: Path, payload: dict) -> None:
        if payload["epoch"] == 2:
            raise UserError("cannot write: no space left")
        write(path, payload)

    monkeypatch.setattr("callbacks.loop.write_checkpoint", full)
    with pytest.raises(UserError, match="no space"):
        fit([Checkpoint(keep=1)], folder=tmp_path)
    assert names(tmp_path) == ["epoch-1.pt"]


def test_a_run_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="Checkpoint needs a run folder"):
        fit([Checkpoint()], folder=None)
