"""A feature of pictures, from their files to the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.images import Pictures
from recbole_ext.features.open_clip_encoder import OpenClipEncoder
from recbole_ext.features.store import FeatureStore


def image_feature(
    folder: str | Path,
    pictures: Mapping[str, Pictures | None],
    subject: Subject,
    encoder: OpenClipEncoder,
    how: Building,
) -> FeatureStore:
    """Build the feature of some pictures, or bring it up to date.

    Args:
        folder: Where the feature goes.
        pictures: Token -> its files, from :func:`~recbole_ext.features.images.read_images`.
        subject: What the feature is of.
        encoder: Makes the vectors.
        how: See :class:`~recbole_ext.features.build.Building`; its ``hash_of`` is ``image_hash``.

    Returns:
        The feature, [n, D] for one global vector, else [n, T * P, D] with a mask.

    Raises:
        UserError: No picture can be read.
    """
    subject = replace(subject, kind="image", notes=(*subject.notes, *encoder.notes))
    store = build(folder, pictures, encoder, subject, how)
    limit = encoder.limit
    n_cut = sum(len(paths or ()) > limit for paths in pictures.values()) if limit else 0
    _report(store, n_cut)
    return store


def _report(store: FeatureStore, n_cut: int) -> None:
    """Log how much is covered, why the rest is not, and of how many some pictures are not used."""
    log, manifest = logging.getLogger(), store.manifest
    log.info(
        "feature %s: %d of %d %ss of the source have pictures, %s, by %s",
        manifest.name,
        manifest.n_present,
        manifest.shape[0],
        manifest.of,
        "x".join(map(str, manifest.shape[1:])),
        manifest.source.encoder,
    )
    without = store.rows[~store.rows["present"]]
    for token, why in zip(without["token"].head(5), without["problem"], strict=False):
        why = why if isinstance(why, str) else "no file is named"
        log.warning("feature %s: no vector for %s: %s", manifest.name, token, why)
    if len(without) > 5:
        log.warning("feature %s: and %d more; see its rows", manifest.name, len(without) - 5)
    if n_cut:
        log.warning(
            "feature %s: %d %ss have more pictures than are used; set pictures for more",
            manifest.name,
            n_cut,
            manifest.of,
        )
