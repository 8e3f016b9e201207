"""Two ways of doing the same work, measured in turns, each time in a process of its own.

A benchmark gives each way as a function of a :class:`Clock`; what the function does inside
``with clock:`` is measured, what it does before is not. The ways take turns, so that a machine that
slows down for a while slows all of them, and medians are compared.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass
class Clock:
    """Measures the seconds and the added peak memory of its ``with`` block.

    Where the processor's seconds stay far below the seconds, something else was running.

    ``share`` is the part of the work that was done inside, for ways that are too slow to do all of
    it: 4 of 64 steps are a share of 1/16, and the seconds are multiplied accordingly. ``notes``
    holds whatever else a way wants to report, such as a metric that must agree.
    """

    share: float = 1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    added_mib: float = 0.0
    peak_mib: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Clock:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _memory("VmRSS")
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.seconds += (time.perf_counter() - self._began) / self.share
        self.cpu_seconds += (time.process_time() - self._cpu_began) / self.share
        self.peak_mib = max(self.peak_mib, _memory("VmHWM"))
        self.added_mib = max(self.added_mib, self.peak_mib - self._before)


class SomeSteps:
    """The first batches of a loader that shuffles: a random share of its epoch."""

    shuffle = True

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, min(steps, len(loader))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Any:
        return islice(iter(self.loader), self.steps)


Way = Callable[[Clock], None]


def side_by_side(title: str, ways: dict[str, Way], rounds: int, target: float | None) -> str:
    """Run every way ``rounds`` times in turns and return a table of medians.

    Args:
        title: What is measured.
        ways: Name -> function of a module; the first is ours, the others are compared with it.
        rounds: Times that each is run.
        target: Ratio of seconds that was to be reached, for the table; ``None`` for none.
    """
    found: dict[str, list[Clock]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            clock = _in_process(name, way)
            found[name].append(clock)
            print(
                f"  round {number + 1}/{rounds}  {name}: {clock.seconds:.3f} s "
                f"({clock.cpu_seconds:.3f} of the processor), "
                f"{clock.added_mib:+.0f} MiB {clock.notes or ''}",
                flush=True,
            )
    return _table(title, found, target)


def _table(title: str, found: dict[str, list[Clock]], target: float | None) -> str:
    ours, *_ = found.values()
    seconds, _, added = _medians(ours)
    lines = [
        f"### {title}",
        "",
        f"| way | seconds (median of {len(ours)}) | lowest - highest | processor seconds "
        "| added peak MiB | seconds / ours | memory / ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, clocks in found.items():
        spent = [clock.seconds for clock in clocks]
        median, cpu, memory = _medians(clocks)
        lines.append(
            f"| {name} | {median:.3f} | {min(spent):.3f} - {max(spent):.3f} | {cpu:.3f} "
            f"| {memory:.0f} | {median / seconds:.1f} | {memory / max(added, 1.0):.1f} |"
        )
    if target is not None:
        lines += ["", f"aim: {target:g} times the seconds"]
    return "\n".join([*lines, "", f"_{machine()}_", ""])


def _medians(clocks: list[Clock]) -> tuple[float, float, float]:
    return (
        statistics.median(clock.seconds for clock in clocks),
        statistics.median(clock.cpu_seconds for clock in clocks),
        statistics.median(clock.added_mib for clock in clocks),
    )


def _in_process(name: str, way: Way) -> Clock:
    """Run one way in a fresh process, so that no cache and no memory of another helps it."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(way, sender))
    process.start()
    sender.close()
    try:
        clock = receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{name} ended with exit code {process.exitcode}") from None
    process.join()
    return clock


def _measure(way: Way, sender: Any) -> None:
    clock = Clock()
    way(clock)
    sender.send(clock)


def _memory(name: str) -> float:
    """Return a line of ``/proc/self/status`` in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / MIB
    raise SystemExit(f"/proc/self/status has no {name}; the benchmarks need Linux")


def machine() -> str:
    """Return date, processor, threads, load and versions: what the numbers are worth."""
    import numpy
    import torch

    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return (
        f"{datetime.date.today()}, {cpu}, {len(os.sched_getaffinity(0))} cores, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the end, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}"
    )


def arguments(description: str, rounds: int = 3, **more: Any) -> argparse.Namespace:
    """Read ``--rounds`` and the options in ``more`` (name -> default) from the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="times each way is run")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=" ")
    return parser.parse_args()
