"""``features image``: pictures through an image encoder."""

from __future__ import annotations

from pathlib import Path

from recbole_ext.feature_commands.common import OF, one_of, say
from recbole_ext.features.build import Subject
from recbole_ext.features.image_feature import image_feature


def encode_images(
    dataset: str,
    name: str,
    images: str,
    arch: str,
    pretrained: str | None = None,
    tokens: str = "global",
    pictures: int | None = None,
    of: str = "item",
    device: str = "auto",
    batch_size: int = 64,
    dtype: str = "float16",
    features_dir: str = "features",
) -> None:
    """Encode pictures by open_clip, one vector for each or one for each of its patches.

    Args:
        dataset: Dataset.
        name: Of the feature.
        images: Folder of files named by their tokens, or a CSV with columns item_id and file.
        arch: Architecture of open_clip, as ViT-B-32.
        pretrained: A tag of it, a file of weights, or random (for trials: they know nothing).
        tokens: global, or patches.
        pictures: How many pictures of an item have vectors of their own; without it one vector
            stands for all of them.
        of: item or user.
        device: auto, cpu or cuda.
        batch_size: Items that are encoded together.
        dtype: float16 or float32.
        features_dir: Where to: features_dir/dataset/name.
    """
    one_of("of", of, OF)
    store = image_feature(
        Path(features_dir) / dataset / name,
        images,
        Subject(name, "image", of, dataset),
        arch=arch,
        pretrained=pretrained,
        tokens=tokens,
        pictures=pictures,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    say(store)
