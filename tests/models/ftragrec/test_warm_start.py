"""FTRagRec on a DuoRec warm start."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from recbole_ext.types import UserError
from tests.models.ftragrec_help import FIXED, first_batch, train


def write_warm_start(net: Any, path: Any, **changes: Any) -> Any:
    payload = {
        "format": "recbole_ext/1",
        "model": "DuoRec",
        "dataset": "tiny",
        "vocabulary": net.vocabulary,
        "settings": {"n_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
        "state_dict": net.state_dict(),
    }
    path.mkdir()
    torch.save({**payload, **changes}, path / "best.pt")
    return path


def test_a_warm_start_must_have_seen_the_data_of_this_run(make, tmp_path):
    duorec, loaders = make("DuoRec")
    path = write_warm_start(duorec, tmp_path / "run")
    result = {"dataset_fingerprint": loaders[0].dataset.fingerprint}
    (path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    make(pretrained_path=str(path))
    (path / "result.json").write_text(json.dumps({"dataset_fingerprint": "another"}))
    with pytest.raises(UserError, match="trained on other interactions"):
        make(pretrained_path=str(path))


def test_alpha_zero_is_duorec_bit_for_bit(make, tmp_path):
    duorec, loaders = make("DuoRec")
    train_duorec = torch.optim.Adam(duorec.parameters(), lr=0.01)
    duorec.calculate_loss(first_batch(loaders[0])).backward()
    train_duorec.step()
    path = write_warm_start(duorec, tmp_path / "run")
    net, _ = make(alpha=0.0, calibrate="none", pretrained_path=str(path))
    mixing_net, _ = make(pretrained_path=str(path), **FIXED)
    train(net, loaders[0])
    for model in (duorec, net, mixing_net):
        model.eval()
    batch = first_batch(loaders[2])
    with torch.no_grad():
        assert torch.equal(net.encode(batch), duorec.encode(batch))  # h after the warm start
        assert torch.equal(net.full_sort_predict(batch), duorec.full_sort_predict(batch))
        assert torch.equal(net.predict(batch), duorec.predict(batch))
        assert not torch.equal(mixing_net.full_sort_predict(batch), duorec.full_sort_predict(batch))
