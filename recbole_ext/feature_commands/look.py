"""``features inspect``: what a feature covers, and how its vectors lie."""

from __future__ import annotations

import numpy as np

from recbole_ext.data.build import create_dataset
from recbole_ext.data.check import check_files
from recbole_ext.feature_commands.common import config_of, open_feature, say, side_rows
from recbole_ext.features.inspect import nearest, pooled, shape_of
from recbole_ext.features.store import FeatureStore
from recbole_ext.features.texts import render
from recbole_ext.types import UserError


def inspect_feature(
    dataset: str,
    name: str,
    titles: str = "",
    n: int = 5,
    k: int = 5,
    images: str = "",
    sheet: str = "",
    data_path: str | None = None,
    features_dir: str = "features",
) -> None:
    """Print what a feature covers, how its vectors lie, and which items are nearest to which.

    Args:
        dataset: Dataset.
        name: Of the feature.
        titles: Field of the .item (or .user) file that is printed with a token.
        n: Items whose neighbours are printed.
        k: Neighbours of each.
        images: Folder or CSV of the pictures, for a sheet of them.
        sheet: PNG of n items and their neighbours.
        data_path: Folder of the datasets.
        features_dir: Where from: features_dir/dataset/name.
    """
    if bool(images) != bool(sheet):
        raise UserError("features inspect: --images=<the pictures> and --sheet=<a PNG> go together")
    store = open_feature(dataset, name, features_dir)
    say(store)
    _print_coverage(store, dataset, data_path)
    rows = store.rows["present"].to_numpy().nonzero()[0]
    vectors = pooled(store, rows)  # [n, D]
    shape = shape_of(vectors)
    print(
        f"length {shape.norm[0]:.3f} (+- {shape.norm[1]:.3f}), mean cosine {shape.cosine:.3f}, "
        f"effective rank {shape.effective_rank:.1f} of {vectors.shape[1]}, "
        f"{shape.n_equal} equal to another"
    )
    tokens = store.rows["token"].to_numpy()[rows]
    named = _titles(dataset, store.manifest.of, titles, data_path) if titles else {}
    some = np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)  # [b]
    best, cosine = nearest(vectors, some, k)  # [b, k] each
    for row, places, values in zip(some, best, cosine, strict=True):
        print(f"\n{tokens[row]} {named.get(tokens[row], '')}".rstrip())
        for place, value in zip(places, values, strict=True):
            print(f"  {value:.3f}  {tokens[place]} {named.get(tokens[place], '')}".rstrip())
    if sheet:
        from recbole_ext.features.contact_sheet import contact_sheet
        from recbole_ext.features.images import read_images

        pictures = read_images(images)
        contact_sheet(sheet, store, pictures, titles=named, n_items=n, n_neighbours=k)
        print(f"\npictures: {sheet}")


def _titles(dataset: str, of: str, field: str, data_path: str | None) -> dict[str, str]:
    path, rows = side_rows(dataset, of, data_path)
    return {token: found or "" for token, found in render(rows, f"{{{field}}}", path).items()}


def _print_coverage(store: FeatureStore, name: str, data_path: str | None) -> None:
    """Print how many items, and how many interactions of each split, have a vector."""
    config = config_of(name, data_path)
    check_files(config)
    dataset = create_dataset(config)
    field = dataset.iid_field if store.manifest.of == "item" else dataset.uid_field
    aligned = store.align(dataset.field2id_token[field])
    present = aligned.present
    print(
        f"{present[1:].mean():.1%} of {len(present) - 1} {store.manifest.of}s of {name}; "
        f"{aligned.n_unknown} rows are of others"
    )
    for split, part in zip(("train", "valid", "test"), dataset.build(), strict=False):
        ids = part.inter_feat[field].numpy()
        print(f"  {split}: {present[ids].mean():.1%} of {len(ids)} interactions")
