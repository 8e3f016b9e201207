"""What the commands share: the dataset they are about, and what they say at the end."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_ext.config import Config
from recbole_ext.data.check import check_folder
from recbole_ext.data.feature_origin import origin_of
from recbole_ext.data.features import feature_folder
from recbole_ext.feature_commands.options import Feature, FeatureOfData
from recbole_ext.features.build import Subject
from recbole_ext.features.store import FeatureStore
from recbole_ext.features.texts import read_atomic
from recbole_ext.features.writing import TEXTS, Texts
from recbole_ext.types import UserError


def check_place(feature: FeatureOfData) -> None:
    """Refuse a place where nothing can be written, and a dataset that there is not.

    Before a model is loaded, which takes minutes. Nothing is made.

    Raises:
        UserError: Naming the option.
    """
    folder = feature.folder
    above = next(path for path in folder.absolute().parents if path.exists())
    there = folder if folder.exists() else above
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written" if there.is_dir() else "is a file"
        raise UserError(
            f"cannot make the folder {folder}: {there} {why}; choose another --features_dir"
        )
    check_folder(config_of(feature.dataset, feature.data_path))


def config_of(dataset: str, data_path: str | None) -> Config:
    """Return the settings of a dataset: a row for each event, split as for sequential models.

    Times are as the file has them, for a cut-off is one of them.
    """
    given = {"data_path": data_path} if data_path else {}
    theirs = Config("DuoRec", dataset, None, given).resolved
    kept = {key: theirs[key] for key in ("eval_args", "load_col")}
    plain = {"normalize_all": False, "normalize_field": None}
    return Config("BPR", dataset, None, {**given, **kept, **plain})


def side_rows(
    dataset: str, of: str, data_path: str | None
) -> tuple[Path, dict[str, dict[str, str]]]:
    """Return the ``.item`` or ``.user`` file of a dataset, and token -> field -> text."""
    config = config_of(dataset, data_path)
    check_folder(config)
    path = (Path(config["data_path"]) / f"{dataset}.{of}").resolve()
    return path, read_atomic(path, config["encoding"] or "utf-8", config["field_separator"])


def subject_of(
    feature: FeatureOfData, kind: str, of: str, is_told: bool = False, read: Texts | None = None
) -> Subject:
    """Return what a feature is of, with the version of the dataset's files.

    Args:
        feature: Which.
        kind: ``text``, ``image`` or ``vector``.
        of: ``item`` or ``user``.
        is_told: Whether it is of what users did, and not of what they are.
        read: Its texts.
    """
    config = config_of(feature.dataset, feature.data_path)
    origin = origin_of(config, ("inter",) if is_told else (of, "inter"))
    cutoff, notes = (read.cutoff, read.notes) if read else (None, ())
    return Subject(feature.name, kind, of, feature.dataset, origin, cutoff, notes)


def open_feature(feature: Feature) -> FeatureStore:
    """Return a stored feature."""
    place = {"features_dir": feature.features_dir, "dataset": feature.dataset}
    return FeatureStore(feature_folder(place, feature.name))


def encode_command(feature: FeatureOfData, of: str) -> str:
    """Return the command that makes vectors of texts that were written."""
    place = {"data_path": feature.data_path, "features_dir": feature.features_dir}
    given = [f" --{key}={value}" for key, value in place.items() if value not in (None, "features")]
    return (
        f"encode them: recbole-ext features text --dataset={feature.dataset} "
        f"--name={feature.name}_vectors --texts={feature.folder / TEXTS} --of={of}{''.join(given)}"
    )


def say(store: FeatureStore) -> None:
    """Print what a feature has, and why rows are without."""
    manifest, problems = store.manifest, store.rows["problem"].dropna()
    shape = " x ".join(map(str, manifest.shape[1:]))
    print(
        f"{store.folder}: {manifest.n_present} of {manifest.shape[0]} {manifest.of}s of the "
        f"source, {shape} {manifest.dtype}, by {manifest.source.encoder}"
    )
    if manifest.n_cut:
        settings = manifest.source.settings
        limit = settings.get("tokens") or settings.get("max_length")
        print(f"  {manifest.n_cut} of {manifest.n_present} texts were cut off after {limit} tokens")
    for problem, n in problems.value_counts().head(5).items():
        print(f"  {n} without: {problem}")
