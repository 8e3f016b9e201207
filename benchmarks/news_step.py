"""Seconds and memory of a training step of the news models, on as many news as MIND-small has.

    OMP_NUM_THREADS=1 python -m benchmarks.news_step            # 65,238 news, 384 numbers of text
    OMP_NUM_THREADS=1 python -m benchmarks.news_step --steps=5 --models=NRMSDocVec,sign,sage

Data are numbers by chance, with 2.5 entities a news, of 40,000; seconds are the processor's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.utils import init_seed

from benchmarks.news_loading import N_NEWS, SETTINGS, peak_gib, write
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.exchange import Given, vector_hash

MODELS = ("NRMSDocVec", "sign", "sage", "gat")


def write_data(place: Path) -> None:
    """Write a twentieth of the impressions, all news, and their vectors."""
    (place / "big").mkdir()
    write(place / "big", 0.05)
    values = np.random.default_rng(0).normal(size=(N_NEWS, 384)).astype(np.float32)
    vectors = {f"N{n}": value for n, value in enumerate(values)}
    subject = Subject("vec", "vector", "item", "big")
    building = Building("float32", show_progress=False, hash_of=vector_hash)
    build(place / "vec", vectors, Given(place / "vec.npy"), subject, building, None)


def measure(place: Path, name: str, n_steps: int) -> None:
    """Take some steps, in this process, and print what one takes."""
    torch.set_num_threads(1)
    is_simple = name == "NRMSDocVec"
    more = {} if is_simple else {"kg_encoder": name}
    settings = {**SETTINGS, **more, "data_path": str(place), "text_feature": str(place / "vec")}
    config = Config("NRMSDocVec" if is_simple else "KGNewsRec", "big", config_dict=settings)
    init_seed(config["seed"], True)
    train, _, test = create_loaders(config, create_dataset(config))
    before, began = peak_gib(), time.process_time()
    model = config.model_class(config, train.dataset)
    built = time.process_time() - began
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    batches = iter(train)
    began = time.process_time()
    for _ in range(n_steps):
        optimizer.zero_grad()
        model.calculate_loss(next(batches)).backward()
        optimizer.step()
    step = (time.process_time() - began) / n_steps
    model.eval()
    began = time.process_time()
    with torch.no_grad():
        model.predict(next(iter(test))[0])
    first = time.process_time() - began
    print(
        f"{name:<11} {built:6.1f} s to build  {step:7.3f} s a step of {config['train_batch_size']} "
        f"clicks  {first:6.1f} s for all news  {peak_gib() - before:5.2f} GiB more"
    )


def main() -> None:
    """Generate, and measure each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help=", ".join(MODELS))
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for name in given.models.split(","):
            run = multiprocessing.get_context("spawn").Process(
                target=measure, args=(Path(folder), name, given.steps)
            )
            run.start()
            run.join()


if __name__ == "__main__":
    main()
