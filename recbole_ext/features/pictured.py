"""Texts that a model writes about pictures: captions, and summaries from picture and text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from recbole_ext.features.encoded import NoContent
from recbole_ext.features.images import Pictures, image_hash, open_image
from recbole_ext.features.llm import Written, ids_of, too_long, written
from recbole_ext.features.manifest import Source
from recbole_ext.features.text_encoders import weights_hash
from recbole_ext.features.vision_language import VisionLanguage
from recbole_ext.features.writing import Texts, write_texts

CAPTION = "Describe what this picture shows in one sentence."
"""For a model of chat; others caption a picture without being asked."""
SUMMARY = """\
The picture shows an item of which this is known.

{fields}

Summarize the item in two or three sentences for somebody who is to guess who may like it: what it \
is, its style, and whom and what it is for. Use both the picture and the text, and write of \
nothing that is in neither.
"""


@dataclass(frozen=True)
class Shown:
    """A prompt about a picture.

    Attributes:
        text: Of the prompt.
        picture: File; ``None`` where there is none.
        image_hash: Of its bytes; empty where it cannot be read.
    """

    text: str
    picture: Path | None
    image_hash: str

    def __str__(self) -> str:
        return f"{self.image_hash or self.picture} {self.text}"


def shown(
    prompts: Mapping[str, str | None], pictures: Mapping[str, Pictures | None]
) -> dict[str, Shown | None]:
    """Put the first picture of each item beside its prompt; ``None`` where that is."""
    found: dict[str, Shown | None] = dict.fromkeys(prompts)
    for token, text in prompts.items():
        if text is None:
            continue
        files = pictures.get(token) or ()
        try:
            digest = image_hash(files[:1])
        except NoContent:
            digest = ""  # the writer says why
        found[token] = Shown(text, files[0] if files else None, digest)
    return found


def write_about_pictures(
    folder: str | Path,
    asked: Mapping[str, Shown | None],
    writer: PictureWriter,
    batch_size: int = 8,
    show_progress: bool = True,
) -> Texts:
    """Have texts written about pictures, those only that are new: for picture, prompt or model.

    ``texts.parquet`` has a column ``image_hash`` beside those of ``write_texts``, whose rules hold:
    what was killed goes on, what failed is recorded and tried again by the next call.

    Args:
        folder: Where to.
        asked: Token -> prompt with its picture, ``None`` where there is nothing to ask.
        writer: Writes them.
        batch_size: Pictures that go through the network together.
        show_progress: Whether there is a progress bar.

    Raises:
        UserError: As for ``write_texts``.
    """
    hashes = {token: one.image_hash for token, one in asked.items() if one and one.image_hash}
    if len(hashes) < len(asked):
        logging.getLogger().warning(
            "%d of %d items have no picture that can be read", len(asked) - len(hashes), len(asked)
        )
    columns = {"image_hash": hashes}
    return write_texts(
        folder, asked, writer, columns=columns, batch_size=batch_size, show_progress=show_progress
    )


class PictureWriter:
    """Writes about pictures, greedily.

    Args:
        found: The model.
        max_new_tokens: Most tokens of a text.
    """

    def __init__(self, found: VisionLanguage, max_new_tokens: int = 64) -> None:
        self.found, self.max_new_tokens = found, max_new_tokens
        settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "dtype": str(found.model.dtype),
            **found.reader.settings,
        }
        self.source = Source(found.name, weights_hash(found.model), settings)

    def write(self, prompts: Sequence[Shown]) -> list[Written]:
        """Return what came of each prompt; a picture that cannot be read is a problem of its own.

        Args:
            prompts: All go through the network together.
        """
        found: dict[int, Written] = {}
        pictures: dict[int, Image.Image] = {}
        for i, one in enumerate(prompts):
            try:
                if one.picture is None:
                    raise NoContent("there is no picture of it")
                pictures[i] = open_image(one.picture)
            except NoContent as error:
                found[i] = Written(None, str(error))
        if pictures:
            texts = self._generate([prompts[i].text for i in pictures], list(pictures.values()))
            found.update(zip(pictures, texts, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _generate(self, texts: list[str], pictures: list[Image.Image]) -> list[Written]:
        """Return what the model writes; a prompt for which it has no room is a problem."""
        reader, model = self.found.reader, self.found.model
        given = reader.inputs([reader.asked(text) for text in texts], pictures)
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        lengths = given["attention_mask"].sum(1).tolist()  # [B]
        long = [too_long(n, self.max_new_tokens, most) for n in lengths]
        if not any(long):
            return self._answers(to_model(given, model))
        fits = [i for i, problem in enumerate(long) if problem is None]
        answers = iter(
            self._generate([texts[i] for i in fits], [pictures[i] for i in fits]) if fits else []
        )
        return [problem or next(answers) for problem in long]

    @torch.no_grad()
    def _answers(self, given: dict[str, Tensor]) -> list[Written]:
        model, tokenizer = self.found.model, self.found.reader.tokenizer
        output = model.generate(
            **given,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )  # [B, T + new], or [B, new] of a model with a decoder of its own
        output = _new_tokens(output, given["input_ids"])  # [B, new]
        ends = ids_of(_ends_of(model, tokenizer), output)  # [e]
        is_cut = ~torch.isin(output, ends).any(1)  # [B]
        found = tokenizer.batch_decode(output, skip_special_tokens=True)
        pairs = zip(found, is_cut.tolist(), strict=True)
        return [written(text, cut, self.max_new_tokens) for text, cut in pairs]


def to_model(given: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return inputs on a model's device, numbers that are no indices in its dtype."""
    return {
        key: value.to(model.device, model.dtype)
        if value.is_floating_point()
        else value.to(model.device)
        for key, value in given.items()
    }


def _new_tokens(output: Tensor, asked: Tensor) -> Tensor:
    """Leave out the prompt [B, T], where the output begins with it."""
    length = asked.shape[1]
    is_repeated = output.shape[1] >= length and torch.equal(output[:, :length], asked)
    return output[:, length:] if is_repeated else output


def _ends_of(model: Any, tokenizer: Any) -> int | list[int] | None:
    """Return the tokens that end a text; those of BLIP-2 are of the language model inside."""
    parts = (getattr(model, "language_model", None), model)
    for part in parts:
        ends = getattr(getattr(part, "generation_config", None), "eos_token_id", None)
        if ends is not None:
            return ends
    return tokenizer.eos_token_id
