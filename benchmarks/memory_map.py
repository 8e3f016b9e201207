"""FTRagRec's memory in main memory and in mapped files: time and memory, on synthetic rows.

A user has 100 rows, a history up to 50 items, and items are drawn evenly. Encoding is an average of
item vectors, so that writing the states is measured and no Transformer (memory_build.py has
that). Each size runs in both ways, each in a process of its own, phase by phase: the states, the
index, the neighbours of all rows, and what 100 steps of 512 rows look up. Added memory has the
pages of the mapped files too, which the kernel takes back when it needs them; "of it anonymous"
(sampled) is what it cannot take back. At the end the bytes of larger memories are printed, from
their formulas.

    python -m benchmarks.memory_map --sizes=1000000 --index=ivf
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from typing import Any

from benchmarks.side_by_side import MIB, Clock, _memory, arguments, machine

PHASES = ("states", "index", "neighbours of all rows", "100 steps")
WAYS = ("in memory", "mapped")
ROWS_OF_USER, LENGTH, WIDTH = 100, 50, 64
STATED = (1_000_000, 10_000_000, 100_000_000)
INDEXES = 2
"""Indices that are held at once at most: of the training's memory and of the scores'."""
EVERY = 0.01
"""Seconds between two looks at the anonymous memory."""


class AnonymousClock(Clock):
    """A clock that watches the memory that belongs to no file, too."""

    def __enter__(self) -> Clock:
        """Begin to watch."""
        self._begin = self._most = _memory("RssAnon")
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        """Note the most that was seen."""
        super().__exit__(*raised)
        self._done.set()
        self._watcher.join()
        self.notes["anonymous"] = self._most - self._begin

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self._most = max(self._most, _memory("RssAnon"))

    def found(self) -> dict[str, float]:
        """Return what was measured."""
        spent = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        return {**spent, "added_mib": self.added_mib, **self.notes}


def synthetic_rows(n: int) -> Any:
    """Return n memory rows over n / 100 items."""
    import torch

    from recbole_ext.modules.histories import Histories, Windows
    from recbole_ext.modules.memory import MemoryRows

    generator = torch.Generator().manual_seed(0)
    items = torch.randint(1, n // 100, (n + 1,), generator=generator)  # [R + 1]
    row = torch.arange(n)  # [R]
    users = row // ROWS_OF_USER  # [R]
    start = torch.maximum(users * ROWS_OF_USER, row + 1 - LENGTH)  # [R]
    histories = Histories(items, Windows(start, row + 1, LENGTH))
    return MemoryRows(histories, row + 1 - start, items.roll(-1)[:n], users)


def bytes_of_rows(rows: Any) -> int:
    """Return the bytes of a memory's rows, encoded or not."""
    windows, values = rows.item_seq.windows, rows.item_seq.values
    columns = [rows.order, rows.place, rows.targets, rows.users, rows.begin, rows.item_seq_len]
    return sum(column.nbytes for column in [*columns, windows.start, windows.stop, values])


def measure(n: int, way: str, index: str, k: int, folder: str, sender: Any) -> None:
    """Run the phases on n rows and send what the clocks found."""
    import torch
    from torch import nn

    from recbole_ext.modules.big_tensor import Room
    from recbole_ext.modules.memory_keeper import MemoryKeeper
    from recbole_ext.modules.retriever import Retriever

    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag = nn.EmbeddingBag(n // 100, WIDTH, padding_idx=0)

        def forward(self, item_seq: torch.Tensor, item_seq_len: torch.Tensor) -> torch.Tensor:
            return self.bag(item_seq)  # [b, D]

    logging.disable(logging.INFO)
    torch.manual_seed(0)
    room = Room(None if way == "in memory" else 0, folder or None)
    blocks = Retriever(WIDTH, inner_size=WIDTH).blocks
    rows, options = synthetic_rows(n), {"snapshot_encoder": False, "room": room}
    keeper = MemoryKeeper(rows, Average(), blocks, index_kind=None, **options)
    clocks = [AnonymousClock() for _ in PHASES]
    with clocks[0]:
        keeper.scoring()
    if index != "random":
        keeper.index_kind = index
        for parameter in blocks.parameters():  # the view has moved; the states stay
            nn.init.normal_(parameter, std=0.05)
    with clocks[1]:
        memory = keeper.scoring()
    with clocks[2]:
        memory.neighbours_of_rows(k)
    generator = torch.Generator().manual_seed(1)
    with clocks[3]:
        for _ in range(100):
            places = torch.randint(n, (512,), generator=generator)  # [B]
            near = memory.neighbours_at(places, k)  # [B, K]
            memory.states_at(places)
            memory.states_at(near.clamp_min(0))  # [B, K, D]
    sender.send((bytes_of_rows(rows), room.most_mapped_mib, [clock.found() for clock in clocks]))


def formulas(k: int, bytes_of_row: float) -> str:
    """Return the bytes of larger memories, as a table."""
    lines = [
        f"| R | states 4RD | neighbours 4RK (K {k}) | vectors of an index in the making 4RD "
        f"| {INDEXES} indices of 4RD, ivf + 8R | rows {bytes_of_row:.0f}R, log p 4R |",
        "|---|---|---|---|---|---|",
    ]
    for n in STATED:
        parts = (4 * WIDTH, 4 * k, 4 * WIDTH, INDEXES * (4 * WIDTH + 8), bytes_of_row + 4)
        lines.append(
            f"| {n:,} | " + " | ".join(f"{n * part / 1e9:.2f} GB" for part in parts) + " |"
        )
    mapped = 8 * WIDTH + 4 * k
    resident = INDEXES * (4 * WIDTH + 8) + bytes_of_row + 4
    lines.append(
        f"\nOf each row {mapped} bytes can be mapped (the first three) and {resident:.0f} cannot: "
        + ", ".join(f"{n * mapped / 1e9:.1f} and {n * resident / 1e9:.1f} GB" for n in STATED)
    )
    return "\n".join(lines)


def main() -> None:
    """Run the sizes that the command line asks for."""
    found = arguments(__doc__ or "", rounds=1, sizes="1000000", index="ivf", top_k=100, folder="")
    lines = [
        "| rows | way | phase | seconds | processor seconds | added peak MiB | of it anonymous |",
        "|---|---|---|---|---|---|---|",
    ]
    bytes_of_row = 0.0
    for n in (int(size) for size in found.sizes.split(",")):
        for way in WAYS * found.rounds:
            context = multiprocessing.get_context("spawn")
            receiver, sender = context.Pipe(duplex=False)
            given = (n, way, found.index, found.top_k, found.folder, sender)
            process = context.Process(target=measure, args=given)
            process.start()
            sender.close()
            n_bytes, mapped_mib, clocks = receiver.recv()
            process.join()
            bytes_of_row = n_bytes / n
            for phase, spent in zip(PHASES, clocks, strict=True):
                line = f"| {n:,} | {way} | {phase} | {spent['seconds']:.2f} "
                line += f"| {spent['cpu_seconds']:.2f} | {spent['added_mib']:.0f} "
                lines.append(f"{line}| {spent['anonymous']:.0f} |")
                print(lines[-1], flush=True)
            print(f"  rows: {n_bytes / MIB:.0f} MiB, mapped: {mapped_mib:.0f} MiB", flush=True)
    print("\n".join(["", *lines, "", formulas(found.top_k, bytes_of_row), "", f"_{machine()}_"]))


if __name__ == "__main__":
    main()
