"""Pictures to vectors by the image tower of open_clip: any architecture, any weights.

``global`` gives the projected image features, not scaled to unit length; ``patches`` the last
layer's output at each place of the grid, for models that attend over patches.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_ext.features.device import device_of
from recbole_ext.features.encoded import Encoded, NoContent
from recbole_ext.features.images import Pictures, open_image
from recbole_ext.features.manifest import Source
from recbole_ext.features.open_clip_weights import Tower, load_tower
from recbole_ext.types import UserError, suggest

TOKENS = ("global", "patches")

CHUNK = 64
"""So many pictures are prepared, and go through the tower, together."""


class OpenClipEncoder:
    """Encodes tuples of files; in float32 on every device.

    Args:
        arch: Architecture, as ``open_clip.list_models()`` has it, or ``hf-hub:<id>`` or
            ``local-dir:<folder>``, which bring their weights.
        pretrained: A tag of the architecture, a file of weights, or ``random``.
        tokens: ``global`` for one vector a picture, ``patches`` for P.
        pictures: Without it a token has one vector, or the patches of its first picture; with a
            number T it has those of its first T pictures, and a mask.
        device: ``cpu``, ``cuda``, ... or ``auto``, which is CUDA where there is one.

    Attributes:
        source: What decides the vectors; its revision is the hash of the tower's weights.
        notes: What a reader of the feature should know.

    Raises:
        UserError: The architecture or its weights are not there, or it has no patch tokens.
    """

    def __init__(
        self,
        arch: str,
        pretrained: str | None = None,
        *,
        tokens: str = "global",
        pictures: int | None = None,
        device: str = "auto",
    ) -> None:
        if tokens not in TOKENS:
            raise UserError(
                f"tokens takes global or patches, not {tokens!r}{suggest(tokens, TOKENS)}"
            )
        if pictures is not None and pictures < 1:
            raise UserError(f"pictures takes a number from 1, or nothing, not {pictures}")
        self.device = device_of(device)
        self.tokens = tokens
        self.is_mean = tokens == "global" and pictures is None
        self.limit = None if self.is_mean else pictures or 1
        tower = load_tower(arch, pretrained)
        self.notes = tower.notes
        self.source = Source(
            tower.name, hash_of_weights(tower.visual), self._settings(tower, pictures)
        )
        self._transform = tower.transform
        self._visual: Any = tower.visual.eval().to(self.device)
        self._shape = self._try(arch, tower.preprocess["size"])  # (P, D) of a picture

    def _settings(self, tower: Tower, pictures: int | None) -> dict[str, object]:
        one = "direction and length are means over pictures" if self.is_mean else "the first"
        return {
            "model": tower.model,
            "preprocess": tower.preprocess,
            "tokens": self.tokens,
            "pictures": pictures or one,
            "unit_length": False,
        }

    def _try(self, arch: str, size: int | Sequence[int]) -> tuple[int, int]:
        """Return how many vectors a picture has and their size, from a blank one."""
        height, width = (size, size) if isinstance(size, int) else size
        try:
            found = self._vectors([torch.zeros(3, height, width)])  # [1, P, D]
        except Exception as error:  # towers say in many ways that they lack something
            raise UserError(
                f"architecture '{arch}' gives no {self.tokens} vectors ({type(error).__name__}: "
                f"{error}); take another one, or another of tokens: {' and '.join(TOKENS)}"
            ) from error
        return found.shape[1], found.shape[2]

    def encode(self, contents: Sequence[Pictures]) -> Encoded:
        """Encode a batch of tuples of files.

        A picture that cannot be read is left out, and logged; where none is left, the content is
        a problem.

        Returns:
            For the mean of global vectors ``values`` [b, D], else [b, T * P, D], picture after
            picture, and ``mask`` [b, T * P]; P is 1 for global vectors.
        """
        n_patches, size = self._shape
        n_slots = 1 if self.is_mean else (self.limit or 1) * n_patches
        values = np.zeros((len(contents), n_slots, size), np.float32)  # [b, T * P, D]
        mask = np.zeros((len(contents), n_slots), bool)  # [b, T * P]
        problems: dict[int, str] = {}
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for begin, end in self._groups(contents):
                opened = list(pool.map(self._open, contents[begin:end]))
                found = self._vectors([image for images, _ in opened for image in images])
                parts = found.split([len(images) for images, _ in opened])
                for i, part, (_, why) in zip(range(begin, end), parts, opened, strict=True):
                    if not len(part):
                        problems[i] = _summary(why, len(contents[i]))
                        continue
                    for one in why:
                        logging.getLogger().warning("a picture of several is left out: %s", one)
                    rows = mean_vector(part[:, 0])[None] if self.is_mean else part.flatten(0, 1)
                    values[i, : len(rows)] = rows.numpy()
                    mask[i, : len(rows)] = True
        if self.is_mean:
            return Encoded(values[:, 0], None, problems)
        return Encoded(values, mask, problems)

    def _groups(self, contents: Sequence[Pictures]) -> Iterator[tuple[int, int]]:
        """Yield the bounds of contents that have at most ``CHUNK`` pictures, or are one."""
        begin, n_pictures = 0, 0
        for i, paths in enumerate(contents):
            n = min(len(paths), self.limit or len(paths))
            if i > begin and n_pictures + n > CHUNK:
                yield begin, i
                begin, n_pictures = i, 0
            n_pictures += n
        if contents:
            yield begin, len(contents)

    def _open(self, paths: Pictures) -> tuple[list[Tensor], list[str]]:
        """Return the first pictures that can be read, each [3, H, W], and what could not be."""
        images: list[Tensor] = []
        problems: list[str] = []
        for path in paths:
            if len(images) == self.limit:
                break
            try:
                images.append(self._transform(open_image(path)))  # [3, H, W]
            except NoContent as error:
                problems.append(str(error))
        return images, problems

    @torch.inference_mode()
    def _vectors(self, images: list[Tensor]) -> Tensor:
        """Return the vectors of pictures, n of [3, H, W], as [n, P, D] on the CPU."""
        if not images:
            return torch.zeros(0, *self._shape)
        found = []
        for begin in range(0, len(images), CHUNK):
            batch = torch.stack(images[begin : begin + CHUNK]).to(self.device)  # [c, 3, H, W]
            part = self._patches(batch) if self.tokens == "patches" else self._global(batch)
            found.append(part.float().cpu())  # [c, P, D]
        return torch.cat(found)

    def _global(self, images: Tensor) -> Tensor:
        features = self._visual(images)  # [c, D]; of CoCa with its tokens
        features = features[0] if isinstance(features, tuple) else features
        return features[:, None]  # [c, 1, D]

    def _patches(self, images: Tensor) -> Tensor:
        found = self._visual.forward_intermediates(
            images,
            indices=1,
            # The last norm of a tower with attention pooling is of another size, for after it.
            normalize_intermediates=getattr(self._visual, "attn_pool", None) is None,
            intermediates_only=True,
            output_fmt="NCHW",
        )["image_intermediates"][-1]  # [c, D, height, width]
        return found.flatten(2).transpose(1, 2)  # [c, P, D]


def mean_vector(vectors: Tensor) -> Tensor:
    """Return the mean of unit vectors, times the mean length; of one vector it is itself.

    Args:
        vectors: Of one token's pictures [n, D], n > 0.

    Returns:
        A vector [D]: a long vector has no more say in the direction than a short one, and tokens
        with one picture and with several have vectors of one scale.
    """
    if len(vectors) == 1:
        return vectors[0]
    lengths = vectors.norm(dim=-1, keepdim=True)  # [n, 1]
    return (vectors / lengths.clamp(min=1e-12)).mean(0) * lengths.mean()  # [D]


def hash_of_weights(module: nn.Module) -> str:
    """Return the hash of a module's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _summary(problems: list[str], n: int) -> str:
    return problems[0] if n == 1 else f"none of {n} pictures can be read, as {problems[0]}"
