"""``features image``: pictures through an image encoder."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_ext.feature_commands.common import check_place, say, subject_of
from recbole_ext.feature_commands.options import FeatureOfData, Kept, at_least, at_most, one_of
from recbole_ext.features.build import Building
from recbole_ext.features.image_feature import image_feature
from recbole_ext.features.images import image_hash, read_images
from recbole_ext.features.open_clip_encoder import TOKENS, OpenClipEncoder

MOST_PICTURES = 1000
"""Of an item: each has a place in the array, whether an item has so many or not."""


@dataclass(frozen=True)
class Tower:
    """The image tower, and what of its output is kept.

    Attributes:
        arch: Architecture of open_clip, as ViT-B-32.
        pretrained: A tag of it, a file of weights, or random (for trials: they know nothing).
        tokens: global, or patches.
        pictures: How many pictures of an item have vectors of their own; without it one vector
            stands for all of them.
        device: auto, cpu or cuda.
    """

    arch: str
    pretrained: str | None = None
    tokens: str = "global"
    pictures: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)
        at_least(1, pictures=self.pictures)
        at_most(MOST_PICTURES, pictures=self.pictures)


def encode_images(
    feature: FeatureOfData, tower: Tower, kept: Kept, images: str, batch_size: int = 64
) -> None:
    """Encode pictures by open_clip, one vector for each or one for each of its patches.

    Args:
        feature: Where to.
        tower: What encodes them.
        kept: What is kept.
        images: Folder of files named by their tokens, or a CSV with columns item_id and file.
        batch_size: Items that are encoded together.
    """
    at_least(1, batch_size=batch_size)
    check_place(feature)
    pictures = read_images(images)
    store = image_feature(
        feature.folder,
        pictures,
        subject_of(feature, "image", kept.of),
        OpenClipEncoder(**vars(tower)),
        Building(kept.dtype, batch_size, hash_of=image_hash),
    )
    say(store)
