"""What it costs to let a language model rank 50 candidates: one prompt, or one for each.

    python benchmarks/llm_rerank.py --users=3

The model is a random Qwen3 of 4 layers with 256 numbers a token, in 32 bits on the CPU; what counts
is the ratio. A user has 20 items of history and 50 candidates, with titles of 5 to 10 words, some
24 tokens of a small vocabulary. Needs the extra llm.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from rerankers.contracts import TinyCorpus  # noqa: E402
from rerankers.tiny_llm import save_qwen  # noqa: E402

from recbole_ext.rerankers.batch import RerankBatch  # noqa: E402
from recbole_ext.rerankers.build import build_reranker  # noqa: E402

WORDS = (
    "the of night house river last first garden winter summer light dark song city road king"
    " queen moon star gold silver glass stone water fire wind heart letter secret long short way"
).split()
N_ITEMS, N_CANDIDATES, N_HISTORY = 2000, 50, 20
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.05,
}
WAYS = {
    "pointwise, unshared": {"scoring": "pointwise", "share_prefix": False},
    "pointwise, history once": {"scoring": "pointwise"},
    "listwise": {"scoring": "listwise"},
}


def titles(rng: np.random.Generator) -> dict[str, str]:
    """Return items with titles of 5 to 10 words and a year."""
    return {
        f"i{i}": " ".join(rng.choice(WORDS, rng.integers(5, 11))).title()
        + f" ({rng.integers(1950, 2020)})"
        for i in range(N_ITEMS)
    }


def users(n: int, texts: dict[str, str], rng: np.random.Generator) -> RerankBatch:
    drawn = [rng.choice(list(texts), N_HISTORY + N_CANDIDATES, replace=False) for _ in range(n)]
    return RerankBatch(
        users=[f"u{user}" for user in range(n)],
        histories=[row[:N_HISTORY].tolist() for row in drawn],
        candidates=[row[N_HISTORY:].tolist() for row in drawn],
        scores=torch.zeros(n, N_CANDIDATES),
        texts=texts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    texts = titles(rng)
    batch = users(arguments.users, texts, rng)
    seconds, scores = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        save_qwen(Path(folder), list(texts.values()), **SIZES)
        for name, settings in WAYS.items():
            given = {"model": folder, "device": arguments.device, "show_progress": False}
            reranker = build_reranker("qwen", {**given, **settings}, TinyCorpus())
            reranker.score(batch.rows([0]))  # what is done once: loading, the labels' tokens
            began = time.process_time()
            scores[name] = reranker.score(batch)
            seconds[name] = (time.process_time() - began) / len(batch)
            n_tokens = [len(reranker.engine.reader.encode(p)) for p in prompts_of(reranker, batch)]
            print(f"{name:24} {np.mean(n_tokens):6.0f} tokens a prompt")
    unshared, shared, _ = WAYS
    apart = (scores[unshared] - scores[shared]).abs().max().item()
    print(f"largest difference of shared and unshared scores: {apart:.1e}")
    print(f"{'way':24} {'s a user':>9} {'ratio':>6}")
    for name, each in seconds.items():
        print(f"{name:24} {each:9.3f} {seconds[unshared] / each:6.1f}")


def prompts_of(reranker: object, batch: RerankBatch) -> list:
    """Return the prompts of the first user."""
    mode = reranker.mode
    if reranker.settings["scoring"] == "pointwise":
        return mode._prompts(batch, 0, range(N_CANDIDATES))
    return [mode._prompt(batch, 0, range(N_CANDIDATES))]


if __name__ == "__main__":
    main()
