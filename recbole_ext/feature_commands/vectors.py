"""``features import`` and ``features export``: files of others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.feature_commands.common import check_place, open_feature, say, subject_of
from recbole_ext.feature_commands.options import Feature, FeatureOfData, Kept, refuse_given
from recbole_ext.features import exchange
from recbole_ext.features.build import Building, build
from recbole_ext.types import UserError


@dataclass(frozen=True)
class KeptExactly(Kept):
    """What is kept; the numbers as they came, unless half of them is enough."""

    dtype: str = "float32"


@dataclass(frozen=True)
class Columns:
    """Names of the columns that RecBole reads.

    Attributes:
        field: Name of the column of vectors.
        token_field: Name of the column of tokens; item_id or user_id by default.
    """

    field: str = "vector"
    token_field: str = ""

    def __post_init__(self) -> None:
        for key, name in vars(self).items():
            if re.search(r"[\s:]", name) or (key == "field" and not name):
                raise UserError(
                    f"--{key}='{name}' cannot be the name of a column; take a word without spaces "
                    "and colons"
                )


def import_vectors(
    feature: FeatureOfData,
    kept: KeptExactly,
    file: str,
    mapping: str = "",
    token: str | None = None,
) -> None:
    """Take over vectors: RecBole's file of additional_feat_suffix, or an .npy array and its tokens.

    Args:
        feature: Where to.
        kept: What is kept.
        file: <dataset>.<suffix> with a column of type float_seq, or an .npy array.
        mapping: To an .npy array: MMRec's table with the number of each item in itemID, or a .json
            list of the tokens of its rows.
        token: Of a table, its column of tokens, where there are several.
    """
    check_place(feature)
    path = _checked(file, mapping, "import")
    is_list = Path(mapping).suffix == ".json"
    if token is not None and (is_list or not mapping):
        raise UserError("--token names a column of --mapping; leave it out where that is no table")
    if is_list:
        contents = exchange.read_listed(path, Path(mapping))
    elif mapping:
        contents = exchange.read_mmrec(path, Path(mapping), token)
    else:
        contents = exchange.read_atomic_vectors(path)
    store = build(
        feature.folder,
        contents,
        exchange.Given(path),
        subject_of(feature, "vector", kept.of),
        Building(kept.dtype, hash_of=exchange.vector_hash),
    )
    say(store)


def export_vectors(feature: Feature, columns: Columns, file: str, mapping: str = "") -> None:
    """Write a feature as RecBole reads it by additional_feat_suffix, or as MMRec does (.npy).

    Args:
        feature: Which.
        columns: Names in the file of RecBole.
        file: <dataset>.<suffix>, or an .npy array.
        mapping: To an .npy array: where the number of each item goes.
    """
    path = _checked(file, mapping, "export")
    if mapping:
        refuse_given(columns, "RecBole's file, not for an .npy array")
    store = open_feature(feature)
    if mapping:
        n = exchange.write_mmrec(store, path, Path(mapping))
    else:
        token_field = columns.token_field or f"{store.manifest.of}_id"
        n = exchange.write_atomic_vectors(store, path, token_field, columns.field)
    print(f"{n} vectors of {store.values.shape[1]} in {path}")


def _checked(file: str, mapping: str, command: str) -> Path:
    if not file:
        raise UserError(f"features {command}: --file is empty; name a file")
    if (Path(file).suffix == ".npy") != bool(mapping):
        raise UserError(
            f"features {command}: --mapping belongs to an .npy --file, and only to one; "
            + (
                "leave it out"
                if mapping
                else "give --mapping=<a table or .json list of its tokens>"
            )
        )
    return Path(file)
