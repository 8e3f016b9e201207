"""The image tower of an open_clip model, with the weights that were named and no others."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from recbole_ext.types import UserError, suggest

RANDOM = "random"
SEED = 0
"""Of random weights, so that they are the same ones each time."""

WITH_WEIGHTS = ("hf-hub:", "local-dir:")
"""Beginnings of an architecture's name that bring weights of their own."""


@dataclass(frozen=True)
class Tower:
    """An image tower and how pictures are prepared for it.

    Attributes:
        visual: Images [n, 3, H, W] -> vectors [n, D], or these and patch tokens.
        transform: RGB picture -> tensor [3, H, W].
        name: Architecture and weights, for a reader.
        model: The architecture's configuration, as far as it is of images.
        preprocess: The transform's settings, with ``size``.
        notes: What a reader should know.
    """

    visual: nn.Module
    transform: Callable[[Image.Image], Tensor]
    name: str
    model: dict[str, Any]
    preprocess: dict[str, Any]
    notes: tuple[str, ...] = ()


def load_tower(arch: str, pretrained: str | None) -> Tower:
    """Load the image tower of an architecture.

    Args:
        arch: As ``open_clip.list_models()`` has it, or ``hf-hub:<id>`` or ``local-dir:<folder>``.
        pretrained: One of the architecture's tags, a file of weights, or ``random``; nothing with
            the last two.

    Raises:
        UserError: open_clip, the architecture or the weights are not there, or do not fit.
    """
    open_clip = _open_clip()
    brings_weights = arch.startswith(WITH_WEIGHTS)
    if brings_weights and pretrained:
        raise UserError(f"'{arch}' brings its weights; leave out pretrained={pretrained}")
    if not brings_weights:
        _check_names(open_clip, arch, pretrained)
    is_random = pretrained == RANDOM
    name = f"open_clip/{arch}" + (f"/{Path(pretrained).name}" if pretrained else "")
    notes: tuple[str, ...] = (f"open_clip {open_clip.__version__}",)
    if is_random:
        notes += (f"random weights (seed {SEED}): nothing was learned",)
        logging.getLogger().warning("%s has %s", name, notes[-1])
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(SEED)
            model = open_clip.create_model(
                arch,
                None if is_random else pretrained,
                require_pretrained=not is_random,
                pretrained_text=False,
            )
        config = open_clip.get_model_config(arch)
        preprocess = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    except Exception as error:  # of the hub, of torch.load, of the weights' shapes: anything
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        raise UserError(
            f"cannot load architecture '{arch}' with pretrained={pretrained} ({reason}); "
            + ("take another one" if is_random else "give a file of weights that are its own")
        ) from error
    return Tower(
        model.visual,
        open_clip.transform.image_transform_v2(preprocess, is_train=False),
        name,
        _plain({key: value for key, value in config.items() if key != "text_cfg"}),
        _plain(model.visual.preprocess_cfg),
        notes,
    )


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            f"pictures need open_clip ({error}); install it with: pip install 'recbole-ext[image]'"
        ) from None
    except Exception as error:  # torchvision beside a torch that it was not built for
        raise UserError(
            f"open_clip does not import ({type(error).__name__}: {error}); see: recbole-ext doctor"
        ) from error
    return open_clip


def _check_names(open_clip: ModuleType, arch: str, pretrained: str | None) -> None:
    architectures = open_clip.list_models()
    if arch not in architectures:
        raise UserError(
            f"open_clip {open_clip.__version__} has no architecture '{arch}'"
            f"{suggest(arch, architectures)} (open_clip.list_models() has all)"
        )
    if pretrained == RANDOM or (pretrained and Path(pretrained).is_file()):
        return
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if pretrained in tags:
        return
    first = ", ".join(tags[:8]) + (f" and {len(tags) - 8} more" if len(tags) > 8 else "")
    there = f"the tags of '{arch}' are {first}" if tags else f"'{arch}' has no tags"
    choice = f"({there}; else a file of weights, or 'random' for a trial)"
    if not pretrained:
        raise UserError(f"set pretrained: nothing says which weights '{arch}' has {choice}")
    raise UserError(
        f"pretrained={pretrained} is no tag of '{arch}' and no file"
        f"{suggest(pretrained, [*tags, RANDOM])} {choice}"
    )


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from JSON."""
    return json.loads(json.dumps(settings, default=str))
