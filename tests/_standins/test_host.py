"""B13, U1, U7: what RecBole does wrong on any stack; U2 is in test_download.py."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compat_help import INTER, SIX, built, config, write


def test_b13_ensure_dir_allows_that_another_process_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.trainer import trainer
    from recbole.utils import utils

    monkeypatch.setattr(
        os.path, "exists", lambda path: False
    )  # as seen just before the other makes it
    for module in (utils, trainer):
        module.ensure_dir(str(tmp_path))
        module.ensure_dir(str(tmp_path / module.__name__))
    assert len(list(tmp_path.iterdir())) == 2


def test_b13_one_process_or_a_cuda_device_is_left_to_recbole() -> None:
    from recbole.trainer.trainer import AbstractTrainer

    model = torch.nn.Linear(2, 1)
    assert not hasattr(AbstractTrainer({"single_spec": True}, model), "distributed_model")


def test_b13_each_process_trains_on_the_gpu_that_gpu_id_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --gpu_id=2,3 the second process has GPU 3; RecBole takes its own number, 1."""
    from recbole.trainer import trainer

    built: dict[str, Any] = {}
    monkeypatch.setattr(
        trainer, "DistributedDataParallel", lambda model, **given: built.update(given, model=model)
    )
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    settings = {"single_spec": False, "device": torch.device("cuda", 3), "local_rank": 1}
    ours = trainer.AbstractTrainer(settings, model)
    assert built["device_ids"] == [3] and built["model"] is ours.model
    assert isinstance(ours.model[0], torch.nn.SyncBatchNorm)


TWO = """
    import sys, torch, torch.distributed as dist
    import recbole_ext
    from recbole.trainer.trainer import AbstractTrainer
    rank, file = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method="file://" + file)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.BatchNorm1d(2))
    torch.nn.init.constant_(model[0].weight, 1.0 + rank)  # rank 0 wins: DDP broadcasts it
    settings = {"single_spec": False, "device": torch.device("cpu"), "local_rank": rank}
    trainer = AbstractTrainer(settings, model)
    x = torch.arange(6.0).reshape(2, 3) * (rank + 1) ** 2  # [2, 3]
    trainer.distributed_model(x).pow(3).sum().backward()
    torch.save((model[0].weight.detach(), model[0].weight.grad), file + str(rank))
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_b13_two_processes_on_the_cpu_train_one_model(tmp_path: Path) -> None:
    """Both end with rank 0's weights and with the mean of the two gradients."""
    file = str(tmp_path / "meet")
    code = textwrap.dedent(TWO)
    started = [subprocess.Popen([sys.executable, "-c", code, str(rank), file]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    (weight0, grad0), (weight1, grad1) = (torch.load(file + rank) for rank in "01")
    assert torch.equal(weight0, torch.ones(2, 3)) and torch.equal(weight1, weight0)

    alone = []
    for rank in (0, 1):
        model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.BatchNorm1d(2))
        torch.nn.init.ones_(model[0].weight)
        x = torch.arange(6.0).reshape(2, 3) * (rank + 1) ** 2
        model(x).pow(3).sum().backward()
        alone.append(model[0].weight.grad)
    for grad in (grad0, grad1):
        torch.testing.assert_close(grad, (alone[0] + alone[1]) / 2)


METRICS = [
    "ItemCoverage",
    "AveragePopularity",
    "GiniIndex",
    "TailPercentage",
    "ShannonEntropy",
    "Hit",
]


def collected(folder: Path) -> tuple[Any, Any]:
    """Return a collector that has seen the training data, and an evaluator."""
    from recbole.evaluator import Collector, Evaluator

    write(folder, inter=[INTER, *SIX])
    chosen: dict[str, Any] = {
        "metrics": METRICS,
        "topk": [2],
        "tail_ratio": 0.5,
        "valid_metric": "Hit@2",
    }
    chosen["eval_args"] = {"split": {"RS": [1, 0, 0]}, "order": "RO", "mode": "full"}
    settings = config(folder, **chosen)
    collector = Collector(settings)
    collector.data_collect(SimpleNamespace(dataset=built(folder, **chosen)))
    return collector, Evaluator(settings)


def test_u1_beyond_accuracy_metrics_are_numbers_that_a_hand_gets_too(tmp_path: Path) -> None:
    collector, evaluator = collected(tmp_path)
    # i1 and i2 occur twice, i3 and i4 once. Both users are given i1; then one i2, the other i3.
    scores = torch.tensor([[0, 9, 8, 1, 0], [0, 9, 1, 8, 0.0]])  # [2 users, PAD + 4 items]
    for _ in range(2):  # the second evaluation needs the counts again
        collector.eval_batch_collect(scores, None, torch.tensor([0, 1]), torch.tensor([2, 4]))
        result = evaluator.evaluate(collector.get_data_struct())
        assert result["itemcoverage@2"] == pytest.approx(3 / 5)  # RecBole counts [PAD] as an item
        assert result["averagepopularity@2"] == pytest.approx(((2 + 2) / 2 + (2 + 1) / 2) / 2)
        # sorted counts 0 0 1 1 2 at places 1 to 5: sum of (2 i - 5 - 1) c, over 5 * 4
        assert result["giniindex@2"] == pytest.approx((0 * 1 + 2 * 1 + 4 * 2) / (5 * 4))
        assert result["tailpercentage@2"] == pytest.approx(
            (0 + 1 / 2) / 2
        )  # the tail: counts below 2
        assert result["hit@2"] == pytest.approx(0.5)


def test_u7_importing_the_sequential_models_leaves_anomaly_mode_off() -> None:
    from recbole.model.sequential_recommender import sine

    importlib.reload(sine)
    assert not torch.is_anomaly_enabled()


def test_u7_anomaly_mode_that_the_user_switched_on_stays_on() -> None:
    from recbole.model.sequential_recommender import sine

    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        importlib.reload(sine)
        assert torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()
