"""The allocator's thresholds: set where there is glibc, and nothing else anywhere."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from recbole_ext import malloc

FAULTS = """
import resource, torch
from recbole_ext.malloc import keep_freed_memory
assert keep_freed_memory()
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 25)  # 128 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
print(step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    """Without the thresholds the second tensor costs 2^15 page faults of 4 KiB each."""
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100


def test_it_leaves_other_systems_alone(monkeypatch):
    def refuse(*_):
        raise AssertionError("no library may be loaded")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert malloc.keep_freed_memory() is False


def test_a_library_without_mallopt_is_no_error(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert malloc.keep_freed_memory() is False
