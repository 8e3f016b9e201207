"""Training in two processes on the CPU, and what is refused before there are any."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from recbole_ext import distributed, quick_start
from recbole_ext.config import Config
from recbole_ext.distributed import spawn_run
from recbole_ext.evaluation.ranks import RankRecorder
from recbole_ext.quick_start import run
from recbole_ext.settings_reading import read_yaml
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.types import UserError
from tests.trainer import in_processes
from tests.trainer.training import records

METRICS = [
    *("NDCG", "Recall", "GAUC", "ItemCoverage", "GiniIndex", "ShannonEntropy"),
    *("AveragePopularity", "TailPercentage"),
]
"""Means over users, one that weighs them, and those that look at all lists at once."""


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    settings = {k: v for k, v in tiny_settings.items() if k != "train_neg_sample_args"}
    return {**settings, "embedding_size": 8, "nproc": 2, "output_dir": str(tmp_path / "run")}


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """End the processes that wait for each other for ever: such a mistake fails, and hangs not."""

    def end(*_: Any) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_two_processes_are_one_training(settings: dict[str, Any], tmp_path: Path) -> None:
    """Metrics are those of one process, a stop is for both, and they end with the same weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    # 27 users: one process has a user more than the other
    more = {"metrics": METRICS, "user_inter_num_interval": "[7,inf)", "epochs": 3}
    chosen = {**settings, **more, "learning_rate": 0.05, "checkpoint_dir": str(folder)}
    with at_most(120):
        result = spawn_run(Config("BPR", "tiny", config_dict=chosen), folder, in_processes.work)
    assert result["weights"][0] == result["weights"][1]
    assert result["epochs"] == [1, 1] and len(records(folder)) == 1
    assert read_checkpoint(folder / "last.pt")["epoch"] == 0
    assert read_checkpoint(folder / "snapshot.pt")["epoch"] == 0

    alone = Config("BPR", "tiny", config_dict={**chosen, "nproc": 1})
    trainer, _, test = in_processes.build(alone, folder)
    assert len(test.uid_list) % 2 == 1
    before = trainer.evaluate(test, load_best_model=False)
    trainer.ranks = RankRecorder()
    after = trainer.evaluate(test)
    assert before != after, "the training has changed nothing, and shows nothing"
    assert result["metrics"] == [(before, after)] * 2
    assert result["ranks"] == [in_processes.rows_of(trainer.ranks)] * 2


def test_the_other_processes_leave_the_folder_alone(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may be writing a file there, whose temporary one looks like a leftover."""
    half = tmp_path / ".config.yaml.1.tmp"
    half.write_text("")

    class Process(dict):
        resolved: ClassVar[dict[str, Any]] = {}

    monkeypatch.setattr(quick_start.Run, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(quick_start.Run, "go", lambda self: {})
    quick_start._go(Process(local_rank=1), tmp_path)
    assert half.exists()
    quick_start._go(Process(local_rank=0), tmp_path, resuming=True)
    assert not half.exists()


def test_what_a_run_of_processes_leaves_can_be_read_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Its config.yaml is that of a run, not of one of its processes, which waits for the others."""
    with at_most(120):
        run("BPR", "tiny", config_dict={**settings, "epochs": 1})
        kept = read_yaml(tmp_path / "run" / "config.yaml")
        assert kept["nproc"] == 2
        assert not {"local_rank", "offset", "world_size", "port"} & set(kept)
        with pytest.raises(UserError, match="in several processes cannot be resumed exactly"):
            run(resume=tmp_path / "run")
        more = ["--nproc=1", f"--output_dir={tmp_path / 'again'}"]
        again = run(config_file_list=[tmp_path / "run" / "config.yaml"], overrides=more)
    assert (again["model"], again["n_epochs"]) == ("BPR", 1)


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        ({"Freeze": {"rules": [{"pattern": "item*"}]}}, "has no gradient"),
        ({"Alternate": {"phases": [{"name": "all"}]}}, "has no gradient"),
        ({"UncertaintyWeights": {"names": ["loss"]}}, "weights of its own"),
        ("Calibrate", "choose for itself"),
    ],
)
def test_a_callback_for_one_process_is_refused_before_there_are_two(
    callback: Any, reason: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed.mp, "spawn", None)
    with pytest.raises(UserError, match=rf"works in one process only \(.*{reason}.*nproc: 1"):
        run("BPR", "tiny", config_dict={**settings, "callbacks": ["LogLosses", callback]})
    assert not Path(settings["output_dir"]).exists()


def test_too_few_gpus_are_refused_before_there_are_two_processes(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(distributed.mp, "spawn", None)
    with pytest.raises(UserError, match="gpu_id '0' has no GPU of its own for process 2 of nproc"):
        run("BPR", "tiny", config_dict={**settings, "use_gpu": True, "gpu_id": 0})


def test_fewer_users_than_processes_are_refused() -> None:
    from recbole_ext.trainer.processes import drop_padding

    class Loader:
        sampler = torch.utils.data.DistributedSampler([0], num_replicas=2, rank=1, shuffle=False)

    with pytest.raises(
        UserError, match="1 users or pairs, fewer than the 2 processes; lower nproc"
    ):
        drop_padding(Loader())
