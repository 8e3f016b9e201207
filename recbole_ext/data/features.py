"""The stored features of a run, by the internal ids of its dataset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recbole_ext.data.feature_origin import changed_since, is_of_these
from recbole_ext.features.manifest import MAY_LEAK, NAME, read_manifest
from recbole_ext.features.store import Aligned, FeatureStore
from recbole_ext.types import UserError, suggest

KINDS = ("text", "image")
"""What the features of a modality are made of."""


def feature_folder(config: Any, name: str) -> Path:
    """Return where a feature lies: ``features_dir/<dataset>/<name>``, or ``name`` as a path.

    Raises:
        UserError: There is none of that name, with those that there are.
    """
    if (Path(name) / NAME).is_file():
        return Path(name)
    place = Path(config["features_dir"]) / config["dataset"]
    folder = place / name
    if not (folder / NAME).is_file():
        _refuse_unfinished(folder, name)
        there = _stored(place)
        hint = suggest(name, there) or (f"; there are: {', '.join(there)}" if there else "")
        raise UserError(
            f"there is no feature '{name}' in {place}{hint} (build it with recbole-ext features, "
            "or set features_dir)"
        )
    return folder


def check_features(config: Any) -> None:
    """Refuse features that are not there, or not to be read, before anything trains.

    Args:
        config: The run's settings.

    Raises:
        UserError: Naming the feature.
    """
    given = config.resolved
    named = [given.get(f"{kind}_feature") for kind in ("text", "image", "user")]
    of_init = given.get("item_init")
    named.append(of_init.get("feature") if isinstance(of_init, dict) else None)
    for name in named:
        if name:
            read_manifest(feature_folder(config, name))


def item_features_of(config: Any) -> dict[str, str]:
    """Return modality -> name of the stored feature that a model of items takes; text first.

    Raises:
        UserError: None is named.
    """
    found = {kind: config[f"{kind}_feature"] for kind in ("text", "image")}
    found = {kind: name for kind, name in found.items() if name}
    if not found:
        raise UserError(
            "text_feature and image_feature: name one or both of the stored features of the "
            f"items, as --text_feature=title {which_there_are(config)}"
        )
    return found


def _stored(place: Path) -> list[str]:
    return sorted(path.parent.name for path in place.glob(f"*/{NAME}"))


def which_there_are(config: Any) -> str:
    """Return what there is to name where a feature has to be named, for the end of a message."""
    place = Path(config["features_dir"]) / config["dataset"]
    there = _stored(place)
    if there:
        return f"(there are {', '.join(there)} in {place}; recbole-ext features builds others)"
    return f"(there are none in {place}; recbole-ext features builds them, or set features_dir)"


def _refuse_unfinished(folder: Path, name: str) -> None:
    """Refuse a folder in which a build was stopped, or that has texts and no vectors of them."""
    if any(path.is_dir() for path in folder.glob("part-*")):
        raise UserError(
            f"feature '{name}' is not finished: its build in {folder} was stopped, or is at work; "
            "the command that began it goes on"
        )
    if any(folder.glob("*.parquet")):
        raise UserError(
            f"{folder} holds texts that a language model wrote, and no vectors of them; make these "
            "under another name, with recbole-ext features text --texts="
            f"{folder / 'texts.parquet'}, and name them"
        )


def load_vectors(config: Any, dataset: Any, name: str, key: str) -> Tensor:
    """Return the items' vectors [N, F] in float32, zeros where an item has none.

    Args:
        config: The run's settings.
        dataset: RecBole dataset.
        name: Of the feature, or its folder.
        key: The setting that names it, for messages.

    Raises:
        UserError: As :func:`load_feature`, or an item has several vectors.
    """
    vectors = torch.from_numpy(load_feature(config, dataset, name).table())  # [N, F] or [N, T, F]
    if vectors.dim() != 2:
        raise UserError(f"{key}: '{name}' has several vectors for an item; name one with one")
    return vectors


def load_feature(
    config: Any, dataset: Any, name: str, of: str = "item", kind: str | None = None
) -> Aligned:
    """Open a feature for a dataset, and log how much of it is covered.

    Args:
        config: The run's settings.
        dataset: RecBole dataset.
        name: Of the feature, or its folder.
        of: ``item`` or ``user``.
        kind: ``text`` or ``image``, as which it is used: where it is made of the other the log
            warns. Of vectors that were imported nobody knows.

    Raises:
        UserError: It is not there, it is of something else, or it has none of the dataset's tokens.
    """
    store = FeatureStore(feature_folder(config, name))
    if store.manifest.of != of:
        raise UserError(
            f"feature '{name}' is of each {store.manifest.of}, and one of each {of} is meant; name "
            f"another, or build it with --of={of}"
        )
    _say_other_kind(name, store.manifest.kind, kind)
    if store.manifest.dataset != config["dataset"]:
        words = f"feature '{name}' is of dataset '{store.manifest.dataset}', whose tokens may mean"
        if not (Path(name) / NAME).is_file():
            raise UserError(
                f"{words} others than those of '{config['dataset']}'; build it for that"
            )
        logging.getLogger().warning("%s others here", words)
    field = dataset.iid_field if of == "item" else dataset.uid_field
    tokens = dataset.field2id_token[field]  # [N]
    aligned = store.align(tokens)
    # what a run was made with: the dataset is what a run and its models have in common
    vars(dataset).setdefault("features_used", {})[name] = store.manifest.generation
    n_covered, n = int(aligned.present.sum()), len(tokens) - 1
    if n_covered == 0:
        raise UserError(
            f"feature '{name}' ({store.folder}) has a vector for none of {n} {of}s: it is of "
            f"dataset '{store.manifest.dataset}', with tokens as {store.rows['token'][0]!r}, where "
            f"this one has {str(tokens[1])!r}; build it for '{config['dataset']}'"
        )
    if is_of_these(config, store.manifest) is False:
        logging.getLogger().warning(changed_since(store.manifest))
    if MAY_LEAK in store.manifest.notes:
        logging.getLogger().warning("feature %s %s", name, MAY_LEAK)
    logging.getLogger().info(
        "feature %s: %s of %d %ss (%.1f %%), %s, by %s; %d of its rows are not in the dataset",
        name,
        n_covered,
        n,
        of,
        100 * n_covered / n,
        "x".join(map(str, aligned.values.shape[1:])),
        store.manifest.source.encoder,
        aligned.n_unknown,
    )
    return aligned


def _say_other_kind(name: str, made_of: str, kind: str | None) -> None:
    if kind in KINDS and made_of in KINDS and made_of != kind:
        logging.getLogger().warning(
            "%s_feature: '%s' is a feature of kind %s; is it %s_feature that is meant?",
            *(kind, name, made_of, made_of),
        )
