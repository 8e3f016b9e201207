"""A slice of the ml-100k that RecBole bundles: some users, and the items that they share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

NAME = "ml-100k-slice"
N_USERS = 100
MIN_COUNT = 5
"""Interactions with these users that an item needs to stay, and triples that a tail needs."""
VECTOR_SIZE = 64
"""Of the random entity and relation vectors that KSR and GRU4RecKG load."""


def write_slice(data_path: Path) -> tuple[int, int, int]:
    """Write the dataset ``NAME`` in ``data_path``; return how many users, items, interactions."""
    import recbole

    source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    place = data_path / NAME
    place.mkdir(parents=True, exist_ok=True)

    def read(suffix: str) -> tuple[str, list[list[str]]]:
        header, *lines = (source / f"ml-100k.{suffix}").read_text(encoding="utf-8").splitlines()
        return header, [line.split("\t") for line in lines]

    def write(suffix: str, header: str, rows: list[list[str]]) -> None:
        lines = [header, *("\t".join(row) for row in rows)]
        (place / f"{NAME}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")

    header, inter = read("inter")
    inter = [row for row in inter if int(row[0]) <= N_USERS]
    counts = Counter(row[1] for row in inter)
    inter = [row for row in inter if counts[row[1]] >= MIN_COUNT]
    write("inter", header, inter)
    users, items = {row[0] for row in inter}, {row[1] for row in inter}
    for suffix, kept in (("user", users), ("item", items), ("link", items)):
        header, rows = read(suffix)
        write(suffix, header, [row for row in rows if row[0] in kept])
    linked = {row[1] for row in read("link")[1] if row[0] in items}
    header, triples = read("kg")
    triples = [row for row in triples if row[0] in linked]
    shared = Counter(row[2] for row in triples)
    triples = [row for row in triples if shared[row[2]] >= MIN_COUNT]
    write("kg", header, triples)
    entities = sorted(linked | {token for row in triples for token in (row[0], row[2])})
    relations = sorted({row[1] for row in triples})
    for name, tokens in (("ent", entities), ("rel", relations)):
        vectors = np.random.default_rng(0).normal(size=(len(tokens), VECTOR_SIZE)).round(3)
        rows = [
            [token, " ".join(map(str, row))]
            for token, row in zip(tokens, vectors.tolist(), strict=True)
        ]
        write(name, f"{name}_id:token\t{name}_emb:float_seq", rows)
    return len(users), len(items), len(inter)
