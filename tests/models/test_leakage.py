"""Random tastes: whoever predicts them better than by chance has seen the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.features.build import Subject
from recbole_ext.registry import get_model
from recbole_ext.types import UserError
from tests.models.feature_help import Fake, write_feature

N_USERS, N_ITEMS, LENGTH = 300, 100, 8
LAST = LENGTH - 1.0
"""Time of each user's last item, the target of the test."""


class OneHot(Fake):
    """A content is a list of numbers; its vector has ones there."""

    def _of(self, content: str, n: int) -> np.ndarray:
        numbers = [int(word) for word in content.split()]
        return np.eye(self.size)[numbers].sum(0, keepdims=True)  # [1, F]


def write_random(folder: Path, seed: int = 0) -> np.ndarray:
    """Write histories that nothing can predict; return the items of each user [U, L]."""
    rng = np.random.default_rng(seed)
    items = rng.integers(N_ITEMS, size=(N_USERS, LENGTH))
    (folder / "random").mkdir(parents=True)
    lines = [
        f"u{u}\ti{i}\t{step}" for u, row in enumerate(items) for step, i in enumerate(row.tolist())
    ]
    lines += [f"u{N_USERS}\ti{i}\t{i}" for i in range(N_ITEMS)]  # every item is there
    head = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "random" / "random.inter").write_text("\n".join([head, *lines]) + "\n")
    return items


def write_items(folder: Path) -> dict[str, str]:
    """Write what each item is; return the setting."""
    texts = {f"i{i}": str(i) for i in range(N_ITEMS)}
    subject = Subject("title", "text", "item", "random")
    return {"text_feature": write_feature(folder, "title", texts, subject, OneHot(N_ITEMS))}


def write_users(folder: Path, items: np.ndarray, cutoff: float | None) -> dict[str, str]:
    """Write all that each user took, the targets too, as from a time; return the setting."""
    tastes = {f"u{u}": " ".join(map(str, row)) for u, row in enumerate(items.tolist())}
    subject = Subject("taste", "text", "user", "random", cutoff=cutoff)
    return {"user_feature": write_feature(folder, "taste", tastes, subject, OneHot(N_ITEMS))}


PROXIES = {
    "n_proxies": 2,
    "memory_items": 2,
    "retriever_layers": 1,
    "retriever_size": 32,
    "retriever_inner_size": 64,
    "retriever_dropout_prob": 0.0,
}
SMALL = {
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "inner_size": 32,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 2,
}


def settings_of(kind: str, features: dict[str, str]) -> dict[str, Any]:
    """Return the model and its settings; where texts are mapped linearly, so wide as they are."""
    stored = {"profile": "stored"} if "user_feature" in features else {}
    joint = {"model": "JointRec", "memory_bank_size": 0, "joint_negatives": 20, **SMALL}
    return {
        "text": {"model": "TextPreferenceRetriever", "hidden_size": N_ITEMS, **stored},
        "images too": {
            "model": "MultimodalPreferenceRetriever",
            "hidden_size": N_ITEMS,
            "image_feature": features["text_feature"],
            **stored,
        },
        "proxies": {"model": "UR4Rec", "hidden_size": 32, **PROXIES, **SMALL},
        "joint, text": {**joint, "hidden_size": N_ITEMS, "retriever_config": stored},
        "joint, proxies": {
            **joint,
            "hidden_size": 32,
            "retriever": "UR4Rec",
            "retriever_config": PROXIES,
        },
    }[kind]


EPOCHS = {"text": 3, "images too": 3, "joint, text": 3, "proxies": 15, "joint, proxies": 15}
"""Kind of the model -> epochs in which one that sees the answers learns to read them."""


def build_model(folder: Path, kind: str, features: dict[str, str]) -> tuple[Any, Any, Any]:
    """Return the model, its training rows and those of the test."""
    given = {**features, **settings_of(kind, features)}
    model = given.pop("model")
    place = {"data_path": str(folder / "data"), "use_gpu": False}
    config = Config(model, "random", config_dict={**place, **given})
    train, _, test = create_loaders(config, create_dataset(config))
    init_seed(1, True)
    return get_model(model)(config, train.dataset), train, test


def train_model(net: Any, rows: Any, n_epochs: int) -> None:
    """Lower the sum of the losses."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(n_epochs):
        for batch in rows:
            optimizer.zero_grad()
            net.calculate_loss(batch).backward()
            optimizer.step()


@torch.no_grad()
def hits_of(net: Any, rows: Any) -> list[bool]:
    """Return of each user whether the target is among the first 10 of the 100 items."""
    found: list[bool] = []
    net.eval()
    for batch, _, _, positives in rows:
        ranks = net.full_sort_predict(batch).argsort(1, descending=True)[:, :10]
        found += (ranks == positives[:, None]).any(1).tolist()
    return found


CASES = [(kind, *case) for kind in EPOCHS for case in ((LAST, "chance"), (1.0, "leak"))]
CASES += [(kind, None, "chance") for kind in EPOCHS if "joint" not in kind]  # of prefixes alone


@pytest.mark.parametrize(("kind", "cutoff", "expected"), CASES, ids=str)
def test_random_tastes_are_predicted_at_chance(tmp_path, kind, cutoff, expected):
    """A text that knows the target (the last step) is kept from it.

    That it would tell, the last case shows: there it claims to be from before the training targets
    and this one, and is not.
    """
    items = write_random(tmp_path / "data")
    features = write_items(tmp_path)
    if cutoff is not None:
        features.update(write_users(tmp_path, items, cutoff))
    net, train, test = build_model(tmp_path, kind, features)
    train_model(net, train, EPOCHS[kind])
    found = hits_of(net, test)
    rate, error = np.mean(found), np.sqrt(0.1 * 0.9 / len(found))
    if expected == "chance":
        assert abs(rate - 0.1) < 4 * error
    else:
        assert rate > 0.1 + 4 * error


@pytest.mark.parametrize("kind", EPOCHS)
def test_texts_of_an_unknown_time_are_refused(tmp_path, kind):
    items = write_random(tmp_path / "data")
    features = {**write_items(tmp_path), **write_users(tmp_path, items, None)}
    with pytest.raises(UserError, match="'taste.* does not say up to which time"):
        build_model(tmp_path, kind, features)
