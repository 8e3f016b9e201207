"""A tower without open_clip: the mean colour of a picture, and of each of its quarters."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from recbole_ext.features import open_clip_encoder
from recbole_ext.features.open_clip_weights import Tower


class Colours(nn.Module):
    """Global vectors are mean colours [n, 3], patches those of quarters [n, 4, 3]."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.batches: list[int] = []
        self.stop_after: int | None = None

    def forward(self, images):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        return self.scale * images.mean((2, 3)), "tokens, as CoCa gives them"

    def forward_intermediates(self, images, **_):
        quarters = nn.functional.avg_pool2d(images, images.shape[-1] // 2)  # [n, 3, 2, 2]
        return {"image_intermediates": [self.scale * quarters]}


def as_tensor(image: Image.Image) -> torch.Tensor:
    array = np.asarray(image.resize((8, 8), Image.Resampling.NEAREST), np.float32)  # [8, 8, 3]
    return torch.from_numpy(array).permute(2, 0, 1)


def put_in(monkeypatch, scale: float = 1.0) -> Colours:
    """Let the encoder have the fake tower, and return it."""
    visual = Colours(scale)
    tower = Tower(visual, as_tensor, "fake/random", {"model": 1}, {"size": [8, 8]}, ("a note",))
    monkeypatch.setattr(open_clip_encoder, "load_tower", lambda arch, pretrained: tower)
    return visual


def write(path, colour, right=None):
    """Write a picture of one colour, or of two halves, and return its path."""
    image = Image.new("RGB", (16, 16), colour)
    if right:
        image.paste(right, (8, 0, 16, 16))
    image.save(path)
    return path
