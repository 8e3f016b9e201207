"""Room for big tensors: in memory up to the limit, in files without a name beyond it."""

from __future__ import annotations

import copy
import pickle
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from recbole_ext.modules.big_tensor import Room
from recbole_ext.types import UserError

KILLED = """
import os, signal, sys
from recbole_ext.modules.big_tensor import Room

tensor = Room(0, sys.argv[1]).empty((1000, 64))
tensor.fill_(1)
print(len(os.listdir(sys.argv[1])), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def maps() -> str:
    """Return the mappings of this process, a line each."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return file.read()


def is_mapped(tensor: torch.Tensor, folder) -> bool:
    """Return whether the tensor's first byte lies in a mapping of a file of the folder."""
    for line in maps().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= tensor.data_ptr() < high:
            return str(folder) in line
    raise AssertionError("the tensor is nowhere")


def test_tensors_stay_in_memory_up_to_the_limit_and_lie_in_files_beyond(tmp_path):
    room = Room(1.0, tmp_path)
    first = room.empty((1 << 18,))  # 1 MiB
    second = room.empty((3, 5), torch.int32)
    assert not is_mapped(first, tmp_path) and is_mapped(second, tmp_path)
    assert second.dtype == torch.int32 and second.shape == (3, 5) and second.is_contiguous()
    del first
    assert not is_mapped(room.empty((1 << 18,)), tmp_path)  # what is freed makes room
    assert room.most_mapped_mib == pytest.approx(60 / 2**20)


def test_what_is_written_to_a_file_is_read_from_it(tmp_path):
    tensor = Room(0, tmp_path).empty((1000, 64))
    rows, values = torch.randperm(1000), torch.randn(1000, 64)
    tensor[rows] = values
    assert torch.equal(tensor[rows], values) and torch.equal(tensor.clone()[rows], values)


def test_a_freed_tensor_frees_its_file(tmp_path):
    room = Room(0, tmp_path)
    tensor = room.empty((1000, 64))
    assert str(tmp_path) in maps()
    del tensor
    assert str(tmp_path) not in maps()


def test_without_a_limit_nothing_is_mapped_and_with_0_all_is(tmp_path):
    assert not is_mapped(Room(None, tmp_path).empty((7, 9)), tmp_path)
    assert is_mapped(Room(0, tmp_path).empty((1, 1)), tmp_path)
    assert Room(0, tmp_path).empty((0, 3)).shape == (0, 3)


def test_a_process_that_is_killed_leaves_no_file(tmp_path):
    """Hence no other end does: a killed process tidies nothing up."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == "0\n"  # nor is there one while it is in use
    assert run.returncode == -signal.SIGKILL and list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_one_sentence(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    Room(0, tmp_path).empty((1 << 18,))
    sentence = (
        f"memory_dir: '{tmp_path}' cannot hold a file of 2 MiB .*No space left.*memory_limit_mib"
    )
    with pytest.raises(UserError, match=sentence):
        Room(0, tmp_path).empty((1 << 19,))


def test_a_file_that_cannot_be_allotted_is_an_error_before_it_is_written(tmp_path):
    """By a limit of the process, which the free space of the disk says nothing of."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(UserError, match="cannot hold a file of 1 MiB .*File too large"):
            Room(0, tmp_path).empty((1 << 18,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere' cannot hold .*No such file"):
        Room(0, tmp_path / "nowhere").empty((1,))


def test_files_go_to_the_folder_for_temporary_ones_unless_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert is_mapped(Room(0).empty((1,)), tmp_path)
    monkeypatch.delenv("TMPDIR")
    assert is_mapped(Room(0).empty((1,)), "/var/tmp")


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda room: pickle.loads(pickle.dumps(room))])
def test_a_copy_counts_its_own_tensors(tmp_path, twin_of):
    room = Room(1.0, tmp_path)
    tensor = room.empty((1 << 18,))
    assert not is_mapped(twin_of(room).empty((1 << 18,)), tmp_path)
    assert is_mapped(room.empty((1 << 18,)), tmp_path) and len(tensor)
