"""The process of a run: its failure is told, and it ends with the comparison, however that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from recbole_ext.compare.plan import plan
from recbole_ext.compare.runner import GOES_ON, in_child, is_done
from recbole_ext.stopping import sigterm_as_interrupt
from tests.compare.conftest import tiny

SECONDS = 60
"""Longest wait; a busy machine may need some of it."""


@pytest.fixture
def job(tiny_data_path, tmp_path):
    settings = {**tiny(tiny_data_path), "epochs": 100_000, "stopping_step": 100_000}
    del settings["models"]
    return {
        "kind": "run",
        "model": "BPR",
        "dataset": "tiny",
        "settings": settings,
        "overrides": [],
        "folder": str(tmp_path / "run"),
        "needs": [],
        "mixes_alike": False,
    }


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_last_line_of_a_failed_run_is_told(job, tmp_path):
    job["settings"]["topk"] = [5, 10, 500]  # more than there are items, which the data tell
    failure = in_child(job, tmp_path / "logs" / "run.log")
    assert "topk [5, 10, 500] asks for more items" in failure
    assert "exit code 2, see run.log" in failure


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_signal_ends_the_child(number, job, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    # a shell starts background jobs with SIGINT ignored, and then Python has no handler for it
    of_ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    children = []
    real = subprocess.Popen

    def started(*arguments, **options):
        children.append(real(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", started)

    def send():
        until(lambda: children and children[0].stdin)
        time.sleep(0.2)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with sigterm_as_interrupt(), pytest.raises(KeyboardInterrupt, match=GOES_ON):
            in_child(job, tmp_path / "run.log")
    finally:
        signal.signal(signal.SIGINT, of_ctrl_c)
    thread.join()
    assert children[0].poll() == -signal.SIGKILL
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_child_ends_with_a_parent_that_was_killed(job, tmp_path):
    """Its end of the pipe closes, whatever killed it; what the child leaves can be continued."""
    child = subprocess.Popen(
        [sys.executable, "-m", "recbole_ext.compare.child"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    child.stdin.write(json.dumps(job).encode() + b"\n")
    child.stdin.flush()
    until((tmp_path / "run" / "last.pt").is_file)
    child.stdin.close()
    assert child.wait(SECONDS) == 1
    assert not is_done(tmp_path / "run")


def test_the_plan_is_checked_before_any_process(overrides, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    plan(["Pop", "BPR"], ["tiny"], [2020], tmp_path, overrides)
    assert not (tmp_path / "runs").exists()
