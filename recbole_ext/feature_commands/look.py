"""``features inspect``: what a feature covers, and how its vectors lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_ext.data.build import create_dataset
from recbole_ext.data.check import check_files
from recbole_ext.data.feature_origin import changed_since, is_of_these
from recbole_ext.feature_commands.common import config_of, open_feature, say, side_rows
from recbole_ext.feature_commands.options import FeatureOfData, at_least
from recbole_ext.features.inspect import nearest, pooled, shape_of
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError, suggest


@dataclass(frozen=True)
class Shown:
    """What is printed, and drawn.

    Attributes:
        titles: Field of the .item (or .user) file that is printed with a token.
        n: Items whose neighbours are printed.
        k: Neighbours of each.
        images: Folder or CSV of the pictures, for a sheet of them.
        sheet: PNG of n items and their neighbours.
    """

    titles: str = ""
    n: int = 5
    k: int = 5
    images: str = ""
    sheet: str = ""

    def __post_init__(self) -> None:
        at_least(1, n=self.n, k=self.k)
        if bool(self.images) != bool(self.sheet):
            raise UserError(
                "features inspect: --images=<the pictures> and --sheet=<a PNG> go together"
            )


def inspect_feature(feature: FeatureOfData, shown: Shown) -> None:
    """Print what a feature covers, how its vectors lie, and which items are nearest to which.

    Args:
        feature: Which.
        shown: How much of it.
    """
    store = open_feature(feature)
    named = _titles(store, feature, shown.titles) if shown.titles else {}
    say(store)
    _print_coverage(store, feature)
    rows = store.rows["present"].to_numpy().nonzero()[0]
    vectors = pooled(store, rows)  # [n, D]
    shape = shape_of(vectors)
    print(
        f"length {shape.norm[0]:.3f} (+- {shape.norm[1]:.3f}), mean cosine {shape.cosine:.3f}, "
        f"effective rank {shape.effective_rank:.1f} of {vectors.shape[1]}, "
        f"{shape.n_equal} equal to another"
    )
    _print_neighbours(store.rows["token"].to_numpy()[rows], vectors, named, shown)
    if shown.sheet:
        from recbole_ext.features.contact_sheet import contact_sheet
        from recbole_ext.features.images import read_images

        sizes = {"n_items": shown.n, "n_neighbours": shown.k}
        contact_sheet(shown.sheet, store, read_images(shown.images), titles=named, **sizes)
        print(f"\npictures: {shown.sheet}")


def _titles(store: FeatureStore, feature: FeatureOfData, field: str) -> dict[str, str]:
    path, rows = side_rows(feature.dataset, store.manifest.of, feature.data_path)
    there = list(next(iter(rows.values())))
    if field not in there:
        raise UserError(
            f"--titles: {path} has no field '{field}'{suggest(field, there)} (its fields are "
            f"{', '.join(there)})"
        )
    return {token: " ".join(row[field].split()) for token, row in rows.items()}


def _print_neighbours(
    tokens: np.ndarray, vectors: np.ndarray, named: dict[str, str], shown: Shown
) -> None:
    """Print some tokens [n] with those whose vectors [n, D] are nearest."""
    some = np.linspace(0, len(tokens) - 1, min(shown.n, len(tokens))).astype(int)  # [b]
    best, cosine = nearest(vectors, some, shown.k)  # [b, k] each
    for row, places, values in zip(some, best, cosine, strict=True):
        print(f"\n{tokens[row]} {named.get(tokens[row], '')}".rstrip())
        for place, value in zip(places, values, strict=True):
            print(f"  {value:.3f}  {tokens[place]} {named.get(tokens[place], '')}".rstrip())


def _print_coverage(store: FeatureStore, feature: FeatureOfData) -> None:
    """Print how many items, and how many interactions of each split, have a vector."""
    config = config_of(feature.dataset, feature.data_path)
    check_files(config)
    if store.manifest.dataset_fingerprint:
        made_for = f"made for {store.manifest.dataset_fingerprint}"
        words = {None: made_for, True: f"{made_for}, as it is here"}
        print(words.get(is_of_these(config, store.manifest)) or changed_since(store.manifest))
    dataset = create_dataset(config)
    field = dataset.iid_field if store.manifest.of == "item" else dataset.uid_field
    aligned = store.align(dataset.field2id_token[field])
    present = aligned.present
    print(
        f"{present[1:].mean():.1%} of {len(present) - 1} {store.manifest.of}s of "
        f"{feature.dataset}; {aligned.n_unknown} rows are of others"
    )
    for split, part in zip(("train", "valid", "test"), dataset.build(), strict=False):
        ids = part.inter_feat[field].numpy()
        print(f"  {split}: {present[ids].mean():.1%} of {len(ids)} interactions")
