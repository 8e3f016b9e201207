"""``captions`` and ``summaries``: texts that a model writes about the pictures of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_ext.feature_commands.common import check_place, encode_command, side_rows
from recbole_ext.feature_commands.options import FeatureOfData, at_least, one_of
from recbole_ext.features.device import WEIGHT_DTYPES
from recbole_ext.features.hub import check_model_name
from recbole_ext.features.images import Pictures, read_images
from recbole_ext.features.pictured import (
    CAPTION,
    SUMMARY,
    PictureWriter,
    Shown,
    shown,
    write_about_pictures,
)
from recbole_ext.features.profiles import description_prompts, read_template
from recbole_ext.features.vision_language import VisionLanguage, load_vision_language
from recbole_ext.features.writing import TEXTS
from recbole_ext.types import UserError


@dataclass(frozen=True)
class CaptionsOfData(FeatureOfData):
    """Where captions go.

    Attributes:
        name: Of the texts.
    """

    name: str = "captions"


@dataclass(frozen=True)
class SummariesOfData(FeatureOfData):
    """Where summaries go.

    Attributes:
        name: Of the texts.
    """

    name: str = "summaries"


@dataclass(frozen=True)
class Seeing:
    """What reads the pictures, and how.

    Attributes:
        model: An alias (qwen3-vl-2b, blip2-opt-2.7b, ...), a hub id or a folder.
        images: Folder of files named by their tokens, or a CSV with columns item_id and file.
        max_pixels: Larger pictures are made smaller; for Qwen-VL.
        batch_size: Pictures that go through the network together.
        device: auto, cpu or cuda.
        dtype: auto, float32, bfloat16 or float16.
        items: Only so many items, for a trial.
    """

    model: str
    images: str
    max_pixels: int | None = None
    batch_size: int = 8
    device: str = "auto"
    dtype: str = "auto"
    items: int | None = None

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, items=self.items, max_pixels=self.max_pixels)
        one_of("dtype", self.dtype, WEIGHT_DTYPES)
        if not self.model:
            raise UserError("--model is empty; name an alias, a hub id or a folder")
        check_model_name("--model", self.model)

    def load(self) -> VisionLanguage:
        """Return the model."""
        return load_vision_language(
            self.model, device=self.device, dtype=self.dtype, max_pixels=self.max_pixels
        )

    def pictures(self) -> dict[str, Pictures | None]:
        """Return the pictures of the items."""
        return dict(list(read_images(self.images).items())[: self.items])


def write_captions(
    feature: CaptionsOfData, seeing: Seeing, prompt: str | None = None, max_new_tokens: int = 40
) -> None:
    """Have a model that reads pictures say what is on each item's first picture.

    Args:
        feature: Where to: features_dir/dataset/name/texts.parquet.
        seeing: What reads.
        prompt: What a model of chat is asked, or how the text of another one begins.
        max_new_tokens: Most tokens of a caption.
    """
    at_least(1, max_new_tokens=max_new_tokens)
    check_place(feature)
    pictures = seeing.pictures()
    found = seeing.load()
    if prompt is None:
        is_chat = found.reader.asked("") != ""
        prompt = CAPTION if is_chat else ""
    asked = shown(dict.fromkeys(pictures, prompt), pictures)
    _write(feature, asked, PictureWriter(found, max_new_tokens), seeing.batch_size)
    _say(feature, "caption")


def write_summaries(
    feature: SummariesOfData, seeing: Seeing, template: str = "", max_new_tokens: int = 128
) -> None:
    """Have a model that reads pictures sum an item up from its first picture and its fields.

    Args:
        feature: Where to: features_dir/dataset/name/texts.parquet.
        seeing: What reads.
        template: File of the prompt, with {fields} or fields by their names.
        max_new_tokens: Most tokens of a summary.
    """
    at_least(1, max_new_tokens=max_new_tokens)
    check_place(feature)
    used = read_template(template) if template else SUMMARY
    _, rows = side_rows(feature.dataset, "item", feature.data_path)
    rows = dict(list(rows.items())[: seeing.items])
    prompts = description_prompts(rows, template=used, where="the template of summaries")
    pictures = read_images(seeing.images)
    if not pictures.keys() & rows.keys():
        raise UserError(
            f"{seeing.images} has pictures of none of the {len(rows)} items of {feature.dataset}: "
            f"it names them as {next(iter(pictures))!r}, the dataset as {next(iter(rows))!r}"
        )
    writer = PictureWriter(seeing.load(), max_new_tokens)
    _write(feature, shown(prompts, pictures), writer, seeing.batch_size)
    _say(feature, "semantic_summary")


def _write(
    feature: FeatureOfData, asked: Mapping[str, Shown | None], writer: PictureWriter, size: int
) -> None:
    texts = write_about_pictures(feature.folder, asked, writer, size).texts
    n_written = sum(text is not None for text in texts.values())
    print(f"{feature.folder / TEXTS}: {n_written} of {len(texts)} texts")


def _say(feature: FeatureOfData, evidence: str) -> None:
    print(
        "rerank with them: recbole-ext rerank --candidates=... --reranker=qwen_vl "
        f"--evidence={evidence} --texts={feature.folder}"
    )
    print(encode_command(feature, "item"))
