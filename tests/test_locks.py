"""One process at a time: the second is told who holds a folder."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from recbole_ext import locks
from recbole_ext.locks import lock, sole_use
from recbole_ext.types import UserError

HOLDS = """
import sys
from pathlib import Path
from recbole_ext.locks import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_told_who_holds_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        who = rf"\({holder.pid} on {re.escape(socket.gethostname())}, since .*\)"
        folder = f"the feature's folder {re.escape(str(tmp_path))}"
        for _ in range(2):  # what is said of the holder is not lost by asking
            with pytest.raises(UserError) as raised:
                with sole_use(tmp_path, what="the feature's folder"):
                    pass
            words = rf"another process is at work in {folder} {who}; wait until it has ended"
            assert re.fullmatch(words, str(raised.value))
        holder.kill()
    with sole_use(tmp_path):  # a killed process holds nothing
        pass


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot write .*nowhere.* choose another place"):
        with sole_use(tmp_path / "nowhere"):
            pass


def test_a_place_to_wait_for_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / ".there.lock").mkdir()  # as a folder of somebody else's refuses it
    with pytest.raises(UserError, match="cannot write .*there.lock: .* choose another place"):
        with lock(tmp_path / "there"):
            pass


def test_a_file_system_without_locks_is_said_and_holds_nobody_up(tmp_path, monkeypatch, caplog):
    def flock(stream, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with sole_use(tmp_path), lock(tmp_path / "there"):
        pass
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("cannot be locked (Function not implemented)" in one for one in said)


def test_on_a_full_disk_the_folder_is_held_all_the_same(tmp_path, monkeypatch):
    def write(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "write", write)
    with sole_use(tmp_path):
        with pytest.raises(UserError, match="another process is at work in the run folder"):
            with sole_use(tmp_path):
                pass
