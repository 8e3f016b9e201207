"""The allocator's thresholds: set where there is glibc, and nothing else anywhere."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from recbole_ext import malloc

MAPPED = """
import ctypes, torch
from recbole_ext.malloc import keep_freed_memory

class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Info
assert keep_freed_memory()
before = libc.mallinfo2().field4  # hblkhd: bytes in mappings of their own
tensor = torch.empty(1 << 25)  # 128 MiB
print(libc.mallinfo2().field4 - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="needs glibc 2.33",
)
def test_large_tensors_get_no_mapping_of_their_own():
    """Such a mapping is given back when they are freed, and the next one costs page faults."""
    run = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1 << 20


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
