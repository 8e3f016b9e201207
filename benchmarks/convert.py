"""Converting raw reviews: seconds, and what memory grows with.

    python -m benchmarks.convert --reviews=1000000

Generates two sets in the form of Amazon 2018 (gzip, a review of about 450 bytes, five a user and
fifteen an item on average, few of them with many), one with a quarter of the other's reviews, and
converts each to its 5-core in a process of its own. The last line is no measurement: it is the
straight line through the two, at ten million.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import Clock

FAR = 10_000_000
TEXT = "It does what it says and I would buy it once more for the price it has now. " * 4
CHUNK = 100_000


def generate(folder: Path, n: int) -> None:
    """Write n reviews and the metadata of their items."""
    rng, n_users, n_items = np.random.default_rng(0), n // 5, n // 15
    folder.mkdir()
    with gzip.open(folder / "X.json.gz", "wt", compresslevel=1) as stream:
        for begin in range(0, n, CHUNK):
            size = min(CHUNK, n - begin)
            users = (n_users * rng.random(size) ** 2).astype(int)  # the first have the most
            items = (n_items * rng.random(size) ** 2).astype(int)
            for user, item, rating in zip(users, items, rng.integers(1, 6, size), strict=True):
                review = {"overall": float(rating), "verified": True, "reviewTime": "05 5, 2018"}
                review |= {"reviewerID": f"A{user:013d}", "asin": f"B{item:09d}"}
                review |= {"reviewText": TEXT, "unixReviewTime": 1500000000 + int(user) % 1000}
                stream.write(json.dumps(review) + "\n")
    with gzip.open(folder / "meta_X.json.gz", "wt", compresslevel=1) as stream:
        for item in range(n_items):
            meta = {"asin": f"B{item:09d}", "title": f"Thing {item}", "category": ["Things"]}
            meta |= {"description": [TEXT], "price": "$9.99", "imageURL": [f"https://m/{item}"]}
            stream.write(json.dumps(meta) + "\n")


def measure(folder: Path, answer: multiprocessing.SimpleQueue) -> None:
    """Convert a set, and tell seconds, peak memory (libraries included), and what is left."""
    from recbole_ext.data.convert.conversion import convert
    from recbole_ext.data.convert.filters import Filters
    from recbole_ext.data.convert.registry import find_raw

    with Clock() as clock:
        raw = find_raw("amazon", folder)
        done = convert(raw, folder / "out", "out", Filters(min_uc=5, min_sc=5))
    last = done.steps[-1]
    left = f"{last.interactions:,} interactions, {last.users:,} users, {last.items:,} items"
    answer.put((clock.seconds, clock.cpu_seconds, clock.peak_mib, left))


def main() -> None:
    """Print a line for each size, and the line through them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=1_000_000)
    parser.add_argument("--keep", help="only generate the larger set, in this folder", type=Path)
    chosen = parser.parse_args()
    n = chosen.reviews
    if chosen.keep:
        return generate(chosen.keep, n)
    sizes, found = (n // 4, n), []
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            folder = Path(place) / str(size)
            generate(folder, size)
            answer = spawn.SimpleQueue()
            process = spawn.Process(target=measure, args=(folder, answer))
            process.start()
            process.join()
            seconds, cpu, mib, left = answer.get()
            found.append((cpu, mib))
            print(
                f"{size:>12,} reviews: {seconds:6.1f} s ({cpu:.1f} of the processor), "
                f"{mib:,.0f} MiB; left {left}",
                flush=True,
            )
    far = [b + (b - a) * (FAR - n) / (n - n // 4) for a, b in zip(*found, strict=True)]
    words = f"{far[0]:.0f} s of the processor, {far[1]:,.0f} MiB"
    print(f"{FAR:>12,} reviews, by a straight line through both: {words}")


if __name__ == "__main__":
    main()
