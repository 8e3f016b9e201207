"""What every test may use: a tiny dataset, settings that finish in seconds, markers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Before torch is imported: tiny tensors are slower on many threads, and tests share the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("RECBOLE_EXT_DATA", ROOT.parent / "shared" / "data"))

# Their asserts are tests too: let pytest show what was compared.
pytest.register_assert_rewrite(
    "contracts", "compat_help", "tests.callbacks.contracts", "rerankers.contracts"
)

N_USERS, N_ITEMS = 30, 40
MAX_LENGTH = 10
"""The tests' ``MAX_ITEM_LIST_LENGTH``: about half of the tiny users have a longer history."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the commands that tests start in other folders find this checkout, installed or not."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine lacks, and say so: a CUDA device (gpu), the data folder (data)."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _has_cuda():
        _skip(gpu, "needs a CUDA device, and torch sees none")
    data = [item for item in items if item.get_closest_marker("data")]
    if data and not SHARED_DATA.is_dir():
        _skip(data, f"needs the data folder {SHARED_DATA}; set RECBOLE_EXT_DATA to where it is")


@pytest.fixture(scope="session")
def tiny_data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder to give as ``data_path``; it holds the dataset ``tiny`` in RecBole's atomic form."""
    folder = tmp_path_factory.mktemp("data")
    write_tiny_dataset(folder, "tiny")
    return folder


@pytest.fixture(scope="session")
def news_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, str]]:
    """Signal (text, graph, id) -> data path of planted impressions, and folder of their vectors."""
    from tests.models.news_help import write_news

    @cache
    def written(signal: str) -> tuple[str, str]:
        folder = tmp_path_factory.mktemp(f"news_{signal}")
        return str(folder), write_news(folder, "tiny", signal)

    return written


@pytest.fixture
def tiny_settings(tiny_data_path: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a sequential model on ``tiny``, on the CPU, that write only to ``tmp_path``."""
    return {
        "data_path": str(tiny_data_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
        "use_gpu": False,
        "seed": 2020,
        "epochs": 2,
        "train_batch_size": 64,
        "eval_batch_size": 64,
        "train_neg_sample_args": None,
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "show_progress": False,
        "checkpoint_dir": str(tmp_path / "saved"),
    }


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Name -> folder of a tiny random model: qwen_vl, blip2, t5. Skips without transformers."""
    import vision_models

    @cache
    def folder(name: str) -> str:
        place = tmp_path_factory.mktemp("models") / name
        return getattr(vision_models, f"save_{name}")(place)

    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the items i0 to i9, of several sizes; that of i3 is damaged."""
    from PIL import Image

    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for i in range(10):
        values = rng.integers(0, 256, (12 + 4 * i, 20, 3), dtype=np.uint8)  # [H, W, 3]
        Image.fromarray(values).save(folder / f"i{i}.png")
    (folder / "i3.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def shared_data() -> Path:
    """The folder with ml-1m and amazon-beauty, for tests with the marker ``data``."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data folder {SHARED_DATA}; set RECBOLE_EXT_DATA to where it is")
    return SHARED_DATA


def write_tiny_dataset(folder: Path, name: str, seed: int = 7) -> Path:
    """Write ``folder/name/name.{inter,item,user}``: 30 users, 40 items, in RecBole's atomic form.

    Three steps in four follow the rule "item i is followed by 3 i + 1 (mod 40)", so a sequential
    model has something to learn and targets repeat over users. Users have 6 to 16 interactions, the
    last user more; every item occurs. The rows are shuffled: whoever needs them in time order must
    sort. Item tokens are ``i0``..``i39`` and user tokens ``u0``..``u29``.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(N_USERS):
        item = user % N_ITEMS
        for step in range(6 + user % 11):
            rows.append((f"u{user}", f"i{item}", int(rng.integers(1, 6)), 1000 * user + step))
            item = (3 * item + 1) % N_ITEMS if rng.random() < 0.75 else int(rng.integers(N_ITEMS))
    missing = sorted(set(range(N_ITEMS)) - {int(row[1][1:]) for row in rows})
    rows += [(f"u{N_USERS - 1}", f"i{item}", 3, 10**6 + item) for item in missing]
    order = rng.permutation(len(rows))
    place = folder / name
    place.mkdir(parents=True)
    _write(
        place / f"{name}.inter",
        "user_id:token item_id:token rating:float timestamp:float",
        [rows[i] for i in order],
    )
    items = [
        (f"i{i}", f"Title {i} of {N_ITEMS}", 1990 + i % 9, f"genre{i % 4}") for i in range(N_ITEMS)
    ]
    _write(
        place / f"{name}.item",
        "item_id:token movie_title:token_seq release_year:token class:token_seq",
        items,
    )
    users = [(f"u{u}", 18 + u, "MF"[u % 2]) for u in range(N_USERS)]
    _write(place / f"{name}.user", "user_id:token age:token gender:token", users)
    return place


def _write(path: Path, header: str, rows: list[tuple]) -> None:
    lines = ["\t".join(header.split(" ")), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _skip(items: list[pytest.Item], reason: str) -> None:
    for item in items:
        item.add_marker(pytest.mark.skip(reason=reason))
