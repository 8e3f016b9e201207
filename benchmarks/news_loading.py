"""Memory and time of loading impressions of MIND-small's size, and of the metrics of its dev part.

    python -m benchmarks.news_loading            # 8.5M rows of 230,117 impressions, generated
    python -m benchmarks.news_loading --share=0.1

The data are numbers by chance in the form of ``recbole-ext convert mind``; the sizes are those of
the data's own description: 156,965 impressions of training, 73,152 of dev, 94,057 users and 65,238
news.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.evaluation.impressions import impression_metrics

N_NEWS, N_USERS, N_SHOWN = 65_238, 94_057, 37
IMPRESSIONS = {"train": 130_817, "valid": 26_148, "test": 73_152}


def write(folder: Path, share: float) -> None:
    """Write a dataset ``big`` of a share of the impressions and users."""
    rng = np.random.default_rng(0)
    n_users = int(share * N_USERS)
    for part, n in IMPRESSIONS.items():
        source = "dev" if part == "test" else "train"
        with (folder / f"big.{part}.inter").open("w") as stream:
            stream.write("impression_id:token\thist_id:token\titem_id:token\tlabel:float\n")
            for i in range(int(share * n)):
                head = f"{part}{i}@{source}\tU{rng.integers(n_users)}@{source}\t"
                news = rng.integers(N_NEWS, size=N_SHOWN)
                stream.writelines(f"{head}N{n}\t{int(k == 0)}\n" for k, n in enumerate(news))
    with (folder / "big.user").open("w") as stream:
        stream.write("hist_id:token\thistory:token_seq\n")
        for source in ("train", "dev"):
            for user in range(n_users):
                read = rng.integers(N_NEWS, size=min(50, 1 + int(rng.exponential(33))))
                stream.write(f"U{user}@{source}\t{' '.join(f'N{n}' for n in read)}\n")
    with (folder / "big.item").open("w") as stream:
        stream.write("item_id:token\tcategory:token\tentities:token_seq\n")
        for n in range(N_NEWS):
            entities = " ".join(f"Q{e}" for e in rng.integers(40_000, size=n % 6))
            stream.write(f"N{n}\tc{n % 18}\t{entities}\n")


def peak_gib() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def main() -> None:
    """Generate, load, take an epoch's batches, and reckon the metrics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of impressions and users")
    share = parser.parse_args().share
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "big"
        folder.mkdir()
        write(folder, share)
        print(f"before loading   {peak_gib():5.2f} GiB")
        config = Config("NRMSDocVec", "big", config_dict=SETTINGS | {"data_path": place})
        began, worked = time.perf_counter(), time.process_time()
        dataset = create_dataset(config)
        loaders = create_loaders(config, dataset)
        print(
            f"loaded           {peak_gib():5.2f} GiB  {time.perf_counter() - began:6.1f} s  "
            f"({time.process_time() - worked:.1f} of the processor)  "
            f"{len(dataset.inter_feat):,} rows of {dataset.num('impression_id') - 1:,} impressions"
        )
        for name, loader in zip(("training", "test"), (loaders[0], loaders[2]), strict=True):
            began, n = time.perf_counter(), 0
            for batch in loader:
                n += len(batch[0] if isinstance(batch, tuple) else batch)
            seconds = time.perf_counter() - began
            print(f"an epoch's {name:<9}{peak_gib():5.2f} GiB  {seconds:6.1f} s  {n:,} rows")
        rows = loaders[2].dataset.inter_feat
        scores = np.random.default_rng(0).random(len(rows))
        began = time.perf_counter()
        impression_metrics(rows["impression_id"].numpy(), scores, rows["label"].numpy())
        print(f"metrics of test  {peak_gib():5.2f} GiB  {time.perf_counter() - began:6.1f} s")


SETTINGS = {
    "USER_ID_FIELD": "hist_id",
    "load_col": {
        "inter": ["impression_id", "hist_id", "item_id", "label"],
        "user": ["hist_id", "history"],
        "item": ["item_id", "category", "entities"],
    },
    "alias_of_item_id": ["history"],
    "benchmark_filename": ["train", "valid", "test"],
    "LABEL_FIELD": "label",
    "use_gpu": False,
    "state": "WARNING",
}

if __name__ == "__main__":
    main()
