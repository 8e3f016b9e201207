"""Checkpoints: plain data, whole or not at all, and one sentence for a file that will not do."""

from __future__ import annotations

import errno
import os
import pickle
import random
import subprocess
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from recbole_ext.trainer import checkpoint
from recbole_ext.trainer.checkpoint import (
    check_identity,
    load_weights,
    other_parameters,
    read_checkpoint,
    rng_state,
    set_rng_state,
    write_checkpoint,
)
from recbole_ext.types import UserError


class Net(nn.Module):
    """A model as RecBole's, with something kept beside its weights."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.features = nn.Embedding(2, 2)
        self.memory = np.arange(3)

    def other_parameter(self) -> dict[str, Any]:
        return {"memory": self.memory, "features": self.features}

    def load_other_parameter(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)


def payload(**more: Any) -> dict[str, Any]:
    net = Net()
    base = {"model": "Net", "dataset": "tiny", "vocabulary": {"items": "a", "users": "b"}}
    weights = {"state_dict": net.state_dict(), "other_parameter": other_parameters(net)}
    return {**base, **weights, "epoch": 0, "step": 0, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.pt"


# ---- what a file holds

DENSE = np.arange(20.0).reshape(5, 4) % 3
VALUES: dict[str, Any] = {
    "numbers": (1, 2.5, True, None, "text", -(2**70)),
    "list": [1, [2, (3,)], {"a": ()}],
    "scalars": [np.float64(0.1), np.int64(7), np.bool_(True)],
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "view": np.arange(6).reshape(2, 3)[:, ::-1].T,
    "of no dimension": np.array(5.0),
    "empty": np.zeros((0, 3), dtype=np.uint8),
    "csr": sp.csr_matrix(DENSE),
    "csc": sp.csc_matrix(DENSE.astype(np.float32)),
    "coo": sp.coo_matrix(([1, 2], ([0, 1], [1, 0])), shape=(3, 3)),
    "dok": sp.dok_matrix((2, 2), dtype=np.float32),
    "lil": sp.lil_matrix(np.eye(3)),
    "sparse array": sp.csr_array(np.eye(2)),
    "tensor": torch.arange(4).to(torch.bfloat16),
    "ordered": OrderedDict(b=torch.ones(1), a=np.ones(1)),
    "numpy keys": defaultdict(list, {np.int64(3): [torch.zeros(2)]}),
}


def same(one: Any, other: Any) -> bool:
    if sp.issparse(other):
        same_kind = one.format == other.format and isinstance(one, sp.sparray) == isinstance(
            other, sp.sparray
        )
        return same_kind and one.dtype == other.dtype and not (one != other).nnz
    if isinstance(other, (np.ndarray, Tensor)):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, (list, tuple)):
        return type(one) is type(other) and all(map(same, one, other)) and len(one) == len(other)
    return one == other and isinstance(one, (int, float, str, type(None)))


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_were(kind: str, path: Path) -> None:
    write_checkpoint(path, {"value": VALUES[kind]})
    torch.load(path, weights_only=True)
    assert same(read_checkpoint(path)["value"], VALUES[kind])


def test_an_object_is_no_plain_data() -> None:
    """The comparison above can fail."""
    assert not same(np.ones(2), np.zeros(2)) and not same([1], (1,)) and not same({1: 2}, {1: 3})


def test_the_state_of_an_optimizer_comes_back(path: Path) -> None:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    net.layer(torch.ones(4)).sum().backward()
    optimizer.step()
    write_checkpoint(path, {"optimizer": optimizer.state_dict()})
    other = torch.optim.Adam(Net().parameters())
    other.load_state_dict(read_checkpoint(path)["optimizer"])
    assert same(other.state_dict(), optimizer.state_dict())


def test_generators_go_on_where_they_were(path: Path) -> None:
    def draw() -> list[float]:
        numbers = [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()]
        return [*numbers, float(torch.rand(1)), float(torch.randn(1))]

    draw()  # one of a pair of normals is left in numpy's and in Python's generator
    write_checkpoint(path, {"rng": rng_state()})
    expected = draw()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert draw() != expected
    set_rng_state(read_checkpoint(path)["rng"])
    assert draw() == expected


def test_parts_of_the_model_are_not_kept_beside_its_weights() -> None:
    """RecBole's feature-rich sequential models name a sub-module."""
    assert list(other_parameters(Net())) == ["memory"]


# ---- writing


@pytest.fixture
def written(path: Path) -> bytes:
    write_checkpoint(path, payload(epoch=1))
    return path.read_bytes()


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FAILURES = {
    "at fsync": (os, "fsync", full_disk, UserError),
    "at the rename": (os, "replace", full_disk, UserError),
    "in torch": (torch, "save", RuntimeError("enforce fail: write failed\nmore"), UserError),
    "Ctrl-C": (torch, "save", KeyboardInterrupt(), KeyboardInterrupt),
    "a bug": (torch, "save", ZeroDivisionError(), ZeroDivisionError),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    case: str, written: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, effect, raised = FAILURES[case]

    def fail(*args: Any) -> None:
        if isinstance(effect, BaseException):
            args[1].write(b"half of it")
            raise effect
        effect()

    with monkeypatch.context() as patch, pytest.raises(raised) as caught:
        patch.setattr(owner, name, fail)
        write_checkpoint(path, payload(epoch=2))
    if raised is UserError:
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert "(what was there before is untouched)" in str(caught.value)
    assert path.read_bytes() == written
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]
    assert read_checkpoint(path)["epoch"] == 1


def test_what_cannot_be_packed_touches_nothing(written: bytes, path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017 - whatever pickle says of a lambda
        write_checkpoint(path, {"value": lambda: None})
    assert path.read_bytes() == written and len(list(path.parent.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB, where this machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    path = small_disk / "last.pt"
    write_checkpoint(path, payload(epoch=1))
    with pytest.raises(UserError, match="cannot write .*last.pt: .*free space or choose another"):
        write_checkpoint(path, payload(big=torch.zeros(100_000)))
    assert read_checkpoint(path)["epoch"] == 1
    assert [p.name for p in small_disk.iterdir()] == ["last.pt"]
    write_checkpoint(path, payload(epoch=2))
    assert read_checkpoint(path)["epoch"] == 2


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*gone/last.pt: No such file"):
        write_checkpoint(tmp_path / "gone" / "last.pt", payload())


# ---- reading


def sentence_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_damaged(part: float, written: bytes, path: Path) -> None:
    path.write_bytes(written[: int(part * len(written))])
    assert "damaged, cut short, or no checkpoint" in sentence_of(path)


def test_no_damaged_byte_goes_unseen(path: Path) -> None:
    """Also within a tensor: torch does not compare the checksums."""
    numbers = torch.arange(5000)
    write_checkpoint(path, payload(big=numbers))
    content = path.read_bytes()
    first = content.index(numbers.numpy().tobytes())
    places = [first, first + 20_001, *np.random.default_rng(0).integers(0, len(content), 40)]
    refused = []
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert torch.equal(read_checkpoint(path)["big"], numbers)  # a byte of no meaning
        except UserError as error:
            assert "damaged, cut short, or no checkpoint" in str(error)
            refused.append(place)
    assert refused[:2] == places[:2] and len(refused) > 30


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch evil",)


FOREIGN: dict[str, tuple[Any, str]] = {
    "text": (b"epochs: 5\n", "damaged, cut short, or no checkpoint"),
    "a pickle": (pickle.dumps({"format": "recbole_ext/1"}), "damaged, cut short, or no checkpoint"),
    "objects": ({"config": Evil(), "state_dict": {}}, "damaged, cut short, or no checkpoint"),
    "another format": ({"state_dict": {"a": torch.ones(1)}}, "no checkpoint of this package"),
    "a later format": ({"format": "recbole_ext/2"}, r"no checkpoint .* \(format recbole_ext/1\)"),
    "a tensor": (torch.ones(2), "no checkpoint of this package"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_refused(case: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, sentence = FOREIGN[case]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    monkeypatch.chdir(path.parent)
    with pytest.raises(UserError, match=sentence):
        read_checkpoint(path)
    assert not (path.parent / "evil").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in sentence_of(tmp_path / "best.pt")
    assert "Is a directory" in sentence_of(tmp_path)


# ---- whose it is


def test_a_checkpoint_of_another_model_or_vocabulary_is_refused(path: Path) -> None:
    ours = {"items": "a", "users": "b"}
    check_identity(payload(), path, "Net", ours)
    with pytest.raises(UserError, match="a checkpoint of Net, not of BPR; give --model=Net"):
        check_identity(payload(), path, "BPR", ours)
    for kind in ("items", "users"):
        with pytest.raises(UserError, match=f"trained on other {kind} .dataset 'tiny'.*ids would"):
            check_identity(payload(), path, "Net", {**ours, kind: "c"})


def test_a_file_that_does_not_say_whose_it_is_is_refused(path: Path) -> None:
    snapshot = {key: value for key, value in payload().items() if key != "vocabulary"}
    with pytest.raises(UserError, match="does not say on which users and items"):
        check_identity(snapshot, path, "Net", {"items": "a"})


def test_weights_and_what_is_beside_them_arrive(path: Path) -> None:
    net = Net()
    net.memory = np.array([7, 8])
    content = payload(state_dict=net.state_dict(), other_parameter=other_parameters(net))
    write_checkpoint(path, content)
    other = Net()
    assert not torch.equal(other.layer.weight, net.layer.weight)
    load_weights(other, read_checkpoint(path), path)
    assert torch.equal(other.layer.weight, net.layer.weight)
    assert other.memory.tolist() == [7, 8]


def test_weights_that_do_not_fit_are_named(path: Path) -> None:
    with pytest.raises(UserError, match="does not fit this model: .*layer.bias.*config.yaml"):
        load_weights(Net(width=5), payload(), path)


def test_the_generators_of_a_loader_are_found_by_name() -> None:
    class Loader:
        def __init__(self, **parts: Any) -> None:
            vars(self).update(parts)

    one, two, three = (torch.Generator() for _ in range(3))
    inner = {"general_dataloader": Loader(generator=two), "kg_dataloader": Loader(generator=three)}
    found = checkpoint.loader_generators(Loader(generator=one, **inner))
    assert found == {"generator": one, "general.generator": two, "kg.generator": three}
    assert checkpoint.loader_generators(Loader()) == {}
