"""A feature of pictures, from their files to the store."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from recbole_ext import __version__
from recbole_ext.features.build import Subject, build
from recbole_ext.features.images import image_hash, read_images
from recbole_ext.features.open_clip_encoder import OpenClipEncoder
from recbole_ext.features.store import FeatureStore


def image_feature(
    folder: str | Path,
    source: str | Path,
    subject: Subject,
    *,
    arch: str,
    pretrained: str | None = None,
    tokens: str = "global",
    pictures: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: str = "float16",
    show_progress: bool = True,
) -> FeatureStore:
    """Build the feature of a folder or a list of pictures, or bring it up to date.

    Args:
        folder: Where the feature goes.
        source: Folder of pictures or CSV of their files; see
            :func:`~recbole_ext.features.images.read_images`.
        subject: What the feature is of.
        arch: Architecture of open_clip.
        pretrained: A tag of it, a file of weights, or ``random``.
        tokens: ``global`` or ``patches``.
        pictures: How many pictures of a token have vectors of their own; without it one vector
            stands for all, or the patches of the first.
        batch_size: Tokens that are encoded, and kept on disk, at a time.
        device: ``auto``, ``cpu``, ``cuda``, ...
        dtype: Of the stored vectors, ``float16`` or ``float32``.
        show_progress: Whether there is a progress bar.

    Returns:
        The feature, [n, D] for one global vector, else [n, T * P, D] with a mask.

    Raises:
        UserError: The pictures, the architecture or its weights are not there, or no picture can
            be read.
    """
    contents = read_images(source)
    encoder = OpenClipEncoder(arch, pretrained, tokens=tokens, pictures=pictures, device=device)
    subject = replace(subject, kind="image", notes=(*subject.notes, *encoder.notes))
    store = build(
        folder,
        contents,
        encoder,
        subject,
        package=__version__,
        dtype=dtype,
        batch_size=batch_size,
        hash_of=image_hash,
        show_progress=show_progress,
    )
    limit = encoder.limit
    n_cut = sum(len(paths or ()) > limit for paths in contents.values()) if limit else 0
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
