"""What every extension model must keep to. A model's test file inherits it:

    class TestDuoRec(ModelContract):
        model = "DuoRec"

The data are the tiny data set of ``conftest.py``, whose longest histories exceed the limit.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any, ClassVar

import pytest
import torch
from recbole.trainer import Trainer
from recbole.utils import init_seed
from torch import Tensor

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.registry import get_model

LIMIT = 10
"""``MAX_ITEM_LIST_LENGTH`` of the contract tests."""


class ModelContract:
    """Inherit, and set ``model``; ``settings`` are the model's own for small data."""

    model: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    zero_gradient: ClassVar[tuple[str, ...]] = ("*.key.bias",)
    """Parameters whose true gradient is 0: attention does not change when all keys shift alike."""

    @pytest.fixture
    def config(self, tiny_data_path, tmp_path) -> Config:
        return self.make_config(tiny_data_path, tmp_path)

    @pytest.fixture
    def gpu_config(self, tiny_data_path, tmp_path) -> Config:
        return self.make_config(tiny_data_path, tmp_path, use_gpu=True, gpu_id="0")

    @pytest.fixture
    def loaders(self, config) -> tuple[Any, Any, Any]:
        init_seed(config["seed"], True)
        return create_loaders(config, create_dataset(config))

    @pytest.fixture
    def net(self, config, loaders) -> Any:
        return self.make_model(config, loaders[0].dataset)

    @pytest.fixture
    def batch(self, config, loaders) -> Any:
        return next(iter(loaders[0])).to(config["device"])

    @pytest.fixture
    def test_batch(self, config, loaders) -> Any:
        return next(iter(loaders[2]))[0].to(config["device"])

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Config:
        return Config(
            self.model,
            "tiny",
            config_dict={
                "data_path": str(data_path),
                "checkpoint_dir": str(folder),
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                "MAX_ITEM_LIST_LENGTH": LIMIT,
                "train_batch_size": 64,
                "eval_batch_size": 64,
                "epochs": 2,
                "use_gpu": False,
                "show_progress": False,
                **self.settings,
                **more,
            },
        )

    def make_model(self, config: Any, train_dataset: Any, seed: int = 1) -> Any:
        """Override where a model needs more than its constructor."""
        init_seed(seed, True)
        return get_model(self.model)(config, train_dataset).to(config["device"])

    def test_losses_are_named_finite_scalars_that_sum_up(self, net, batch):
        torch.manual_seed(3)
        losses = net.losses(batch)
        assert losses and all(isinstance(name, str) for name in losses)
        for name, loss in losses.items():
            assert loss.shape == () and torch.isfinite(loss), name
        torch.manual_seed(3)
        torch.testing.assert_close(net.calculate_loss(batch), sum(losses.values()))

    def test_a_log_of_the_model_ends_in_a_whole_number_of_parameters(self, net):
        number = str(net).rpartition("Trainable parameters: ")[2]
        assert int(number) == sum(p.numel() for p in net.parameters() if p.requires_grad)

    def test_every_parameter_that_trains_gets_a_gradient(self, net, loaders, config):
        for batch in loaders[0]:
            net.calculate_loss(batch.to(config["device"])).backward()
        for name, parameter in net.named_parameters():
            if not parameter.requires_grad:
                assert parameter.grad is None, f"{name} is frozen and has a gradient"
            elif not any(fnmatch(name, pattern) for pattern in self.zero_gradient):
                assert parameter.grad is not None and parameter.grad.any(), name

    @torch.no_grad()
    def test_predict_is_the_gathered_full_sort(self, net, test_batch):
        net.eval()
        scores = net.full_sort_predict(test_batch).view(len(test_batch), -1)
        for item in range(1, net.n_items):
            # a batch of a general model has users alone
            test_batch[net.ITEM_ID] = torch.full_like(test_batch[net.USER_ID], item)
            torch.testing.assert_close(
                net.predict(test_batch), scores[:, item], rtol=1e-5, atol=1e-5
            )

    @torch.no_grad()
    def test_padding_never_ranks(self, net, test_batch):
        net.eval()
        scores = net.full_sort_predict(test_batch).view(len(test_batch), -1)
        assert (scores[:, 0] < scores[:, 1:].min(1).values).all()

    def test_batch_of_one(self, net, batch, test_batch):
        loss = net.calculate_loss(batch[[0]])
        loss.backward()
        assert torch.isfinite(loss)
        net.eval()
        with torch.no_grad():
            alone = net.full_sort_predict(test_batch[[0]]).view(-1)
            among = net.full_sort_predict(test_batch).view(len(test_batch), -1)[0]
        torch.testing.assert_close(alone, among, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_histories_longer_than_the_limit(self, net, loaders, config, test_batch):
        if not hasattr(net, "ITEM_SEQ_LEN"):
            pytest.skip("the model reads no history")
        rows = loaders[0].dataset.inter_feat
        full = rows[net.ITEM_SEQ_LEN] == LIMIT
        user = rows[net.USER_ID][full]
        assert len(user) > len(user.unique()), "the tiny data set has no history beyond the limit"
        net.eval()
        assert (test_batch[net.ITEM_SEQ_LEN] == LIMIT).any()
        scores = net.full_sort_predict(test_batch)
        assert scores.view(len(test_batch), -1)[:, 1:].isfinite().all()

    def test_same_seed_same_loss(self, config, loaders, batch):
        def run() -> Tensor:
            net = self.make_model(config, loaders[0].dataset, seed=5)
            return net.calculate_loss(batch).detach()

        assert torch.equal(run(), run())

    def test_saved_and_loaded_scores_are_identical(
        self, net, config, loaders, batch, test_batch, tmp_path
    ):
        net.calculate_loss(batch).backward()
        torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01).step()
        torch.save(
            {"state_dict": net.state_dict(), "other_parameter": net.other_parameter()},
            tmp_path / "net.pt",
        )
        saved = torch.load(tmp_path / "net.pt", weights_only=True)
        other = self.make_model(config, loaders[0].dataset, seed=77)
        other.load_state_dict(saved["state_dict"])
        other.load_other_parameter(saved["other_parameter"])
        with torch.no_grad():
            expected = net.eval().full_sort_predict(test_batch)
            assert torch.equal(other.eval().full_sort_predict(test_batch), expected)

    def test_some_steps_on_one_batch_lower_its_loss(self, net, batch):
        def loss() -> float:
            net.eval()
            torch.manual_seed(3)
            return net.calculate_loss(batch).item()

        before = loss()
        optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01)
        for _ in range(30):
            net.train()
            optimizer.zero_grad()
            net.calculate_loss(batch).backward()
            optimizer.step()
        assert loss() < 0.95 * before

    def test_trains_under_recboles_own_trainer(self, net, config, loaders):
        before = {name: value.clone() for name, value in net.named_parameters()}
        score, result = Trainer(config, net).fit(
            loaders[0], loaders[1], saved=False, show_progress=False
        )
        assert 0 <= score <= 1 and result
        for name, value in net.named_parameters():
            assert value.isfinite().all(), name
            if value.requires_grad and not any(fnmatch(name, p) for p in self.zero_gradient):
                assert not torch.equal(value, before[name]), f"{name} did not move"

    @pytest.mark.gpu
    def test_cuda_agrees_with_the_cpu(self, gpu_config, loaders, net, test_batch):
        config = gpu_config
        on_gpu = self.make_model(config, loaders[0].dataset, seed=9)
        on_gpu.load_state_dict(net.state_dict())
        on_gpu.load_other_parameter(net.other_parameter())
        loss = on_gpu.calculate_loss(next(iter(loaders[0])).to(config["device"]))
        loss.backward()
        assert loss.device.type == "cuda" and torch.isfinite(loss)
        with torch.no_grad():
            scores = on_gpu.eval().full_sort_predict(test_batch.to(config["device"])).cpu()
            expected = net.eval().full_sort_predict(test_batch)
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


def assert_like_in_16_bits(net: Any, batch: Any) -> None:
    """As with enable_amp: the losses stay in 32 bits and are about the same, gradients finite."""
    torch.manual_seed(3)
    expected = {name: loss.item() for name, loss in net.losses(batch).items()}
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.losses(batch)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name], rel=0.05, abs=0.01), name
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
