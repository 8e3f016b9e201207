"""``features import`` and ``features export``: files of others."""

from __future__ import annotations

from pathlib import Path

from recbole_ext import __version__
from recbole_ext.feature_commands.common import OF, one_of, open_feature, say
from recbole_ext.features import exchange
from recbole_ext.features.build import Subject, build
from recbole_ext.types import UserError


def import_vectors(
    dataset: str,
    name: str,
    file: str,
    mapping: str = "",
    token: str | None = None,
    of: str = "item",
    dtype: str = "float32",
    features_dir: str = "features",
) -> None:
    """Take over vectors: RecBole's file of additional_feat_suffix, or MMRec's .npy and its mapping.

    Args:
        dataset: Dataset.
        name: Of the feature.
        file: <dataset>.<suffix> with a column of type float_seq, or an .npy array.
        mapping: To an .npy array: the table with the number of each item in itemID.
        token: Its column of tokens, where there are several.
        of: item or user.
        dtype: float16 or float32.
        features_dir: Where to: features_dir/dataset/name.
    """
    one_of("of", of, OF)
    path = Path(file)
    if (path.suffix == ".npy") != bool(mapping):
        raise UserError("features import: --mapping belongs to an .npy --file, and only to one")
    if mapping:
        contents = exchange.read_mmrec(path, Path(mapping), token)
    else:
        contents = exchange.read_atomic_vectors(path)
    folder = Path(features_dir) / dataset / name
    subject = Subject(name, "vector", of, dataset)
    store = build(
        folder,
        contents,
        exchange.Given(path),
        subject,
        package=__version__,
        dtype=dtype,
        hash_of=exchange.vector_hash,
    )
    say(store)


def export_vectors(
    dataset: str,
    name: str,
    file: str,
    mapping: str = "",
    field: str = "vector",
    token_field: str = "",
    features_dir: str = "features",
) -> None:
    """Write a feature as RecBole reads it by additional_feat_suffix, or as MMRec does (.npy).

    Args:
        dataset: Dataset.
        name: Of the feature.
        file: <dataset>.<suffix>, or an .npy array.
        mapping: To an .npy array: where the number of each item goes.
        field: Name of the column of vectors.
        token_field: Name of the column of tokens; item_id or user_id by default.
        features_dir: Where from: features_dir/dataset/name.
    """
    store = open_feature(dataset, name, features_dir)
    path = Path(file)
    if (path.suffix == ".npy") != bool(mapping):
        raise UserError("features export: --mapping belongs to an .npy --file, and only to one")
    if mapping:
        n = exchange.write_mmrec(store, path, Path(mapping))
    else:
        token_field = token_field or f"{store.manifest.of}_id"
        n = exchange.write_atomic_vectors(store, path, token_field, field)
    print(f"{n} vectors of {store.values.shape[1]} in {path}")
