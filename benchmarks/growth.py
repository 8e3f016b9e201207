"""Time and memory of the data pipeline on synthetic interactions, from 100 thousand to 30 million.

Items are drawn by Zipf's law; the lengths of histories are those of a log-normal law fitted to
ml-1m's (median 96, mean 165, at least 5). Each size runs in a process of its own, phase by phase:
reading and filtering, splitting into rows, the first batch, a pass over 100 batches, and the
collector on the scores of some users over all items. The table is printed; ``--out`` also
gets it as ``growth.csv``, and a log-log plot as ``growth.svg``.

    python -m benchmarks.growth --sizes=100000,1000000,10000000 --out=docs
"""

from __future__ import annotations

import csv
import logging
import multiprocessing
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side import Clock, arguments, machine

PHASES = ("read and filter", "split into rows", "first batch", "100 batches", "rank 2048 users")
ROWS_AT_A_TIME = 1_000_000
MEDIAN, SIGMA, LEAST = 96, 1.0, 5


def generate(folder: Path, n: int) -> None:
    """Write ``synthetic.inter`` with about n interactions, n / 100 items and n / 165 users."""
    rng = np.random.default_rng(0)
    n_items = max(n // 100, 1000)
    lengths = np.maximum(rng.lognormal(np.log(MEDIAN), SIGMA, size=n // 100), LEAST).astype(int)
    lengths = lengths[: max(int(np.searchsorted(lengths.cumsum(), n)), 1)]
    users = np.repeat(np.arange(len(lengths)), lengths)  # [M]
    weight = 1 / np.arange(1, n_items + 1)
    edges = (weight / weight.sum()).cumsum()
    with (folder / "synthetic.inter").open("w", encoding="ascii") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for begin in range(0, len(users), ROWS_AT_A_TIME):
            mine = users[begin : begin + ROWS_AT_A_TIME]
            items = np.searchsorted(edges, rng.random(len(mine)))
            times = np.arange(begin, begin + len(mine))
            rows = zip(mine.tolist(), items.tolist(), times.tolist(), strict=True)
            file.writelines(f"u{user}\ti{item}\t{moment}\n" for user, item, moment in rows)


def measure(n: int, sender: Any) -> None:
    """Run the phases on n interactions and send a clock for each."""
    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries

    # isort: split
    import torch
    from recbole.utils import init_seed

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders
    from recbole_ext.evaluation.ranks import ranks_of

    logging.disable(logging.INFO)
    clocks = [Clock() for _ in PHASES]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "synthetic"
        folder.mkdir()
        generate(folder, n)
        settings = {
            "data_path": place,
            "use_gpu": False,
            "train_neg_sample_args": None,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "show_progress": False,
        }
        config = Config("SASRec", "synthetic", config_dict=settings)
        init_seed(config["seed"], True)
        with clocks[0]:
            dataset = create_dataset(config)
        with clocks[1]:
            train, _, test = create_loaders(config, dataset)
        with clocks[2]:
            next(iter(train))
        with clocks[3]:
            for _ in islice(train, 100):
                pass
        n_users = min(2048, len(test.dataset))
        with clocks[4]:
            for _ in range(n_users // 64):
                scores = torch.rand(64, dataset.item_num)  # [64, N]
                ranks_of(scores, torch.arange(64), torch.ones(64, dtype=torch.long))
                scores.topk(20, dim=1)
        notes = {
            "interactions": len(dataset.inter_feat),
            "users": dataset.user_num - 1,
            "items": dataset.item_num - 1,
            "rows": len(train.dataset),
        }
    sender.send((notes, clocks))


def main() -> None:
    """Run the sizes that the command line asks for."""
    found = arguments(__doc__ or "", sizes="100000,1000000,10000000", out="")
    table: list[dict[str, Any]] = []
    for n in (int(size) for size in found.sizes.split(",")):
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(n, sender))
        process.start()
        sender.close()
        notes, clocks = receiver.recv()
        process.join()
        for phase, clock in zip(PHASES, clocks, strict=True):
            spent = {"phase": phase, "seconds": clock.seconds, "added_mib": clock.added_mib}
            table.append({**notes, **spent})
            print(table[-1], flush=True)
    print(as_markdown(table))
    if found.out:
        write(Path(found.out), table)


def as_markdown(table: list[dict[str, Any]]) -> str:
    """Return the table, and for each phase the slope of log seconds over log interactions."""
    lines = [
        "| interactions | users | items | phase | seconds | added peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['interactions']:,} | {row['users']:,} | {row['items']:,} | {row['phase']} "
        f"| {row['seconds']:.2f} | {row['added_mib']:.0f} |"
        for row in table
    ]
    for phase in PHASES:
        rows = [row for row in table if row["phase"] == phase][-3:]
        if len(rows) > 1:
            x = np.log([row["interactions"] for row in rows])
            y = np.log([max(row["seconds"], 1e-4) for row in rows])
            lines.append(f"\n{phase}: seconds grow as interactions^{np.polyfit(x, y, 1)[0]:.2f}")
    return "\n".join([*lines, "", f"_{machine()}_", ""])


def write(folder: Path, table: list[dict[str, Any]]) -> None:
    """Write ``growth.csv`` and ``growth.svg``."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "growth.csv").open("w", newline="", encoding="ascii") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, value in zip(axes, ("seconds", "added_mib"), strict=True):
        for phase in PHASES:
            rows = [row for row in table if row["phase"] == phase]
            axis.loglog(
                [row["interactions"] for row in rows],
                [max(row[value], 1e-3) for row in rows],
                marker="o",
                label=phase,
            )
        axis.set_xlabel("interactions")
        axis.set_ylabel(value.replace("added_mib", "added peak MiB"))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(folder / "growth.svg")


if __name__ == "__main__":
    main()
