"""A small dataset of impressions in the form of ``recbole-ext convert mind``, with a planted rule.

Each news and each user is of one of four topics, and a user clicks the candidates of his topic.
What tells the topic of news is chosen: ``text`` (stored vectors), ``graph`` (entities), ``id``
(nothing: news of the test are those of training).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.manifest import Source

N_USERS, N_NEWS, N_TOPICS, SIZE = 24, 80, 4, 8
N_CANDIDATES, N_CLICKED = 6, 2
SETTINGS: dict[str, Any] = {
    "USER_ID_FIELD": "hist_id",
    "TIME_FIELD": "timestamp",
    "load_col": {
        "inter": ["impression_id", "hist_id", "item_id", "label", "timestamp"],
        "user": ["hist_id", "history"],
        "item": ["item_id", "category", "entities"],
    },
    "alias_of_item_id": ["history"],
    "normalize_field": ["timestamp"],
    "benchmark_filename": ["train", "valid", "test"],
}
"""Of the dataset."""


def topic_of(news: int) -> int:
    return news % N_TOPICS


def write_news(folder: Path, name: str = "tiny", signal: str = "text", n_train: int = 120) -> str:
    """Write the dataset and its stored vectors; return the folder of these.

    News of an even number are those of training, and of an odd one those of validation and test,
    but for the signal ``id``. Users 0 and 1 have no history. Two impressions of the test have one
    class alone. News 5 and 6 have neither a vector nor entities.
    """
    rng = np.random.default_rng(0)
    place = folder / name
    place.mkdir(parents=True)
    shown = {part: [n for n in range(N_NEWS) if signal == "id" or n % 8 < 4] for part in ("train",)}
    shown["valid"] = shown["test"] = [n for n in range(N_NEWS) if signal == "id" or n % 8 >= 4]
    for part, n_impressions in (("train", n_train), ("valid", 30), ("test", 30)):
        _write(
            place / f"{name}.{part}.inter",
            "impression_id:token hist_id:token item_id:token label:float timestamp:float",
            [row for i in range(n_impressions) for row in _impression(rng, part, i, shown[part])],
        )
    _write(
        place / f"{name}.user",
        "hist_id:token history:token_seq",
        [(f"U{u}@train", _history(rng, u, shown["train"])) for u in range(N_USERS)],
    )
    _write(
        place / f"{name}.item",
        "item_id:token category:token entities:token_seq",
        [(f"N{n}", f"topic{topic_of(n)}", _entities(rng, n, signal)) for n in range(N_NEWS)],
    )
    return _vectors(rng, folder, name, signal)


def _impression(rng: Any, part: str, i: int, shown: Sequence[int]) -> list[tuple]:
    user = i % N_USERS
    mine = [n for n in shown if topic_of(n) == user % N_TOPICS]
    others = [n for n in shown if topic_of(n) != user % N_TOPICS]
    clicked = rng.choice(mine, N_CLICKED, replace=False)
    others = rng.choice(others, N_CANDIDATES - N_CLICKED, replace=False)
    if part == "test" and i < 2:
        clicked = clicked[:0]
    rows = [(n, 1) for n in clicked] + [(n, 0) for n in others]
    rows = [rows[k] for k in rng.permutation(len(rows))]
    time = {"train": 0, "valid": 1000, "test": 2000}[part] + i
    return [(f"{i}@{part}", f"U{user}@train", f"N{n}", label, time) for n, label in rows]


def _history(rng: Any, user: int, shown: Sequence[int]) -> str:
    if user < 2:
        return ""
    mine = [n for n in shown if topic_of(n) == user % N_TOPICS]
    return " ".join(f"N{n}" for n in rng.choice(mine, 3 + user % 3, replace=False))


def _entities(rng: Any, news: int, signal: str) -> str:
    if news in (5, 6):
        return ""
    topic = topic_of(news) if signal == "graph" else int(rng.integers(N_TOPICS))
    return " ".join(f"Q{topic}{k}" for k in rng.choice(4, 3, replace=False))


def _vectors(rng: Any, folder: Path, name: str, signal: str) -> str:
    centres = 3 * np.eye(N_TOPICS, SIZE)  # [topics, F]
    values = rng.normal(size=(N_NEWS, SIZE))  # [N, F]
    if signal == "text":
        values += centres[[topic_of(n) for n in range(N_NEWS)]]
    texts = {f"N{n}": None if n in (5, 6) else str(n) for n in range(N_NEWS)}
    subject = Subject("vec", "text", "item", name)
    build(folder / "vec", texts, _Given(values), subject, Building(show_progress=False), None)
    return str(folder / "vec")


class _Given:
    """Encodes a text, which is a number, as that row of an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.source = Source("given", "1", {})
        self.values = values

    def encode(self, contents: Sequence[Any]) -> Encoded:
        """Return the rows that the contents name."""
        return Encoded(self.values[[int(content) for content in contents]])


def _write(path: Path, header: str, rows: list[tuple]) -> None:
    lines = ["\t".join(header.split(" ")), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
