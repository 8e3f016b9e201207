"""Milliseconds to score for one user: text only, cross-modal, and token by token.

On ml-100k with made-up vectors of real sizes: 384 numbers for a text, 16 tokens of it, 49 patches
of a picture. One user at a time, in evaluation, where the vectors of all items are there already
(``first`` is the first user, who waits for them): 100 candidates, and all items.

    OMP_NUM_THREADS=1 python -m benchmarks.preference_latency
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE, TOKENS, PATCHES = 384, 16, 49
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "text only": ("TextPreferenceRetriever", {"text_feature": "text"}),
    "late fusion": (
        "MultimodalPreferenceRetriever",
        {"text_feature": "text", "image_feature": "image"},
    ),
    "cross-modal": (
        "MultimodalPreferenceRetriever",
        {"text_feature": "tokens", "image_feature": "patches", "fusion": "cross_modal"},
    ),
    "token by token": (
        "MultimodalPreferenceRetriever",
        {"text_feature": "tokens", "image_feature": "patches", "fusion": "token"},
    ),
    "SASRec and text (JointRec)": ("JointRec", {"text_feature": "text"}),
}


def _features(place: Path, tokens: list[str]) -> None:
    import numpy as np

    from recbole_ext.features.build import Building, Subject, build
    from recbole_ext.features.encoded import Encoded
    from recbole_ext.features.manifest import Source

    class Random:
        """Stands for an encoder."""

        def __init__(self, n: int) -> None:
            self.n, self.source = n, Source("random", str(n))

        def encode(self, contents: Any) -> Any:
            rng = np.random.default_rng(len(contents[0]) + self.n)
            values = rng.normal(size=(len(contents), self.n, SIZE)).astype(np.float32)
            if self.n == 1:
                return Encoded(values[:, 0])
            return Encoded(values, np.ones(values.shape[:2], dtype=bool))

    for name, n in (("text", 1), ("image", 1), ("tokens", TOKENS), ("patches", PATCHES)):
        subject = Subject(name, "text", "item", "ml-100k")
        contents = {token: f"{name} {token}" for token in tokens}
        folder = place / "ml-100k" / name
        build(folder, contents, Random(n), subject, Building(show_progress=False))


def _time(work: Any, n: int) -> float:
    """Return the median milliseconds of a call."""
    seconds = []
    for i in range(n):
        began = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def measure(model: str, settings: dict[str, Any], place: Path, n: int) -> tuple[float, ...]:
    """Return the milliseconds of the first user, of 100 candidates, and of all items."""
    import torch

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders
    from recbole_ext.registry import get_model

    given = {**settings, "features_dir": str(place), "use_gpu": False, "softmax": "in_batch"}
    if model == "JointRec":
        del given["softmax"]
    config = Config(model, "ml-100k", None, given)
    loaders = create_loaders(config, create_dataset(config))
    net = get_model(model)(config, loaders[0].dataset).eval()
    rows = loaders[2].dataset.inter_feat
    n = min(n, len(rows))
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randint(1, net.n_items, (n, 1, 100), generator=generator)  # [n, 1, 100]
    with torch.no_grad():
        began = time.perf_counter()
        net.full_sort_predict(rows[[0]])
        first = 1000 * (time.perf_counter() - began)
        some = _time(lambda i: net.scores(rows[[i]], candidates[i]), n)
        every = _time(lambda i: net.full_sort_predict(rows[[i]]), n)
    return first, some, every


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200, help="users, at most all of them")
    n = parser.parse_args().users
    import torch

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset

    dataset = create_dataset(Config("Pop", "ml-100k"))
    tokens = [str(token) for token in dataset.field2id_token[dataset.iid_field][1:]]
    n_threads = torch.get_num_threads()
    print(f"| milliseconds a user, {n_threads} thread(s) | first | 100 | {len(tokens)} |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        _features(Path(place), tokens)
        for name, (model, settings) in WAYS.items():
            found = measure(model, settings, Path(place), n)
            print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in found) + " |")


if __name__ == "__main__":
    main()
