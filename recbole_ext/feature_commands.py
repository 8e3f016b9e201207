"""``recbole-ext features ...``: from files to stored features, to others' files, and a look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ext import __version__
from recbole_ext.arguments import call, help_of
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.data.check import check_files
from recbole_ext.data.features import feature_folder
from recbole_ext.features import exchange
from recbole_ext.features.build import Subject, build
from recbole_ext.features.inspect import nearest, shape_of
from recbole_ext.features.store import FeatureStore
from recbole_ext.features.text_encoders import MINILM, SentenceEncoder
from recbole_ext.features.texts import read_atomic, read_texts, render
from recbole_ext.settings_kinds import OF
from recbole_ext.types import UserError, suggest


def text(
    dataset: str,
    name: str,
    template: str = "",
    texts: str = "",
    of: str = "item",
    encoder: str = MINILM,
    tokens: int = 0,
    max_length: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    batch_size: int = 64,
    dtype: str = "float16",
    data_path: str | None = None,
    features_dir: str = "features",
) -> None:
    """Encode texts: the fields of a dataset's .item (or .user) file, or those of a file of texts.

    Args:
        dataset: Dataset.
        name: Of the feature.
        template: Text of an item made of its fields, as "{movie_title} ({release_year}). {genre}".
        texts: Instead a file token -> text: .json, .jsonl, .csv, .tsv or .parquet.
        of: item or user.
        encoder: minilm, a hub id, or a folder with a saved sentence-transformers model.
        tokens: Keep vectors of so many first tokens of a text, and not one for all of it.
        max_length: Tokens of a text that are read; the encoder's own limit by default.
        revision: Of a hub id.
        device: cpu or cuda; a GPU is taken where there is one.
        batch_size: Texts that are encoded together.
        dtype: float16 or float32.
        data_path: Folder of the datasets.
        features_dir: Where to: features_dir/dataset/name.
    """
    _one_of("of", of, OF)
    if bool(template) == bool(texts):
        raise UserError(
            'features text needs --template="{title}", of fields of the dataset, or --texts=FILE'
        )
    settings: dict[str, Any] = {"texts": Path(texts).name} if texts else {"template": template}
    if texts:
        contents = read_texts(texts)
    else:
        path, config = _side_file(dataset, of, data_path)
        separator = config["field_separator"]
        rows = read_atomic(path, config["encoding"] or "utf-8", separator)
        contents = render(rows, template, path)
    made = SentenceEncoder(
        encoder,
        {"template": template} if template else {},
        tokens=tokens,
        max_length=max_length,
        revision=revision,
        device=device,
        batch_size=batch_size,
    )
    subject = Subject(name, "text", of, dataset, notes=(str(settings),))
    folder = Path(features_dir) / dataset / name
    _say(build(folder, contents, made, subject, package=__version__, dtype=dtype))


def import_(
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
    _one_of("of", of, OF)
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
    _say(store)


def export(
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
    store = _open(dataset, name, features_dir)
    path = Path(file)
    if (path.suffix == ".npy") != bool(mapping):
        raise UserError("features export: --mapping belongs to an .npy --file, and only to one")
    if mapping:
        n = exchange.write_mmrec(store, path, Path(mapping))
    else:
        token_field = token_field or f"{store.manifest.of}_id"
        n = exchange.write_atomic_vectors(store, path, token_field, field)
    print(f"{n} vectors of {store.values.shape[1]} in {path}")


def inspect(
    dataset: str,
    name: str,
    titles: str = "",
    n: int = 5,
    k: int = 5,
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
        data_path: Folder of the datasets.
        features_dir: Where from: features_dir/dataset/name.
    """
    store = _open(dataset, name, features_dir)
    _say(store)
    _print_coverage(store, dataset, data_path)
    rows = store.rows["present"].to_numpy().nonzero()[0]
    vectors = _pooled(store, rows)  # [n, D]
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


COMMANDS: dict[str, Callable[..., None]] = {
    "text": text,
    "import": import_,
    "export": export,
    "inspect": inspect,
}


def run(arguments: list[str]) -> int:
    """Do ``recbole-ext features <what> --key=value ...``."""
    what, *rest = arguments or [""]
    if what not in COMMANDS:
        hint = suggest(what, COMMANDS) if what else ""
        raise UserError(f"features: one of {', '.join(COMMANDS)} is meant, not '{what}'{hint}")
    command = f"recbole-ext features {what}"
    if any(argument in ("-h", "--help") for argument in rest):
        print(help_of(COMMANDS[what], command))
        return 0
    call(COMMANDS[what], rest, command)
    return 0


def help_of_all() -> Iterator[str]:
    """Yield a line for each command."""
    for name, function in COMMANDS.items():
        yield f"{name:<9} {(function.__doc__ or '').splitlines()[0]}"


def _one_of(key: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise UserError(f"--{key} takes {' or '.join(words)}, not '{value}'{suggest(value, words)}")


def _config(dataset: str, data_path: str | None) -> Config:
    given = {"data_path": data_path} if data_path else {}
    return Config("Pop", dataset, None, given)


def _side_file(dataset: str, of: str, data_path: str | None) -> tuple[Path, Config]:
    """Return the ``.item`` or ``.user`` file of a dataset, and the settings it is read by."""
    config = _config(dataset, data_path)
    return Path(config["data_path"]) / f"{dataset}.{of}", config


def _titles(dataset: str, of: str, field: str, data_path: str | None) -> dict[str, str]:
    path, config = _side_file(dataset, of, data_path)
    rows = read_atomic(path, config["encoding"] or "utf-8", config["field_separator"])
    return {token: found or "" for token, found in render(rows, f"{{{field}}}", path).items()}


def _open(dataset: str, name: str, features_dir: str) -> FeatureStore:
    return FeatureStore(feature_folder({"features_dir": features_dir, "dataset": dataset}, name))


def _say(store: FeatureStore) -> None:
    manifest, problems = store.manifest, store.rows["problem"].dropna()
    shape = " x ".join(map(str, manifest.shape[1:]))
    print(
        f"{store.folder}: {manifest.n_present} of {manifest.shape[0]} {manifest.of}s, {shape} "
        f"{manifest.dtype}, by {manifest.source.encoder}"
    )
    for problem, n in problems.value_counts().head(5).items():
        print(f"  {n} without: {problem}")


def _pooled(store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    """Return a vector for each of some rows, [n, D]: the mean of those that count."""
    if store.mask is None:
        return store.values[rows].astype(np.float32)
    found = np.zeros((len(rows), store.values.shape[2]), dtype=np.float32)  # [n, D]
    for i, row in enumerate(rows):
        found[i] = store.values[row][store.mask[row]].astype(np.float32).mean(0)
    return found


def _print_coverage(store: FeatureStore, name: str, data_path: str | None) -> None:
    """Print how many items, and how many interactions of each split, have a vector."""
    config = _config(name, data_path)
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
