"""A Qwen-VL ranks candidates by titles and pictures, or by texts that were written about these.

All candidates stand in one prompt, and the letters' logits are the scores, as for ``qwen``. What
the model is told of a candidate beside its title is the ``evidence``: nothing (``text_only``), the
picture (``raw_image``), its caption, or a summary of the item, whole or short.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from recbole_ext.features.encoded import text_hash
from recbole_ext.features.vision_language import (
    VisionLanguage,
    is_qwen_vl,
    load_vision_language,
    vision_config,
)
from recbole_ext.rerankers.base import Corpus
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm import keeping
from recbole_ext.rerankers.llm.budget import Budget
from recbole_ext.rerankers.llm.loading import check_length, precision
from recbole_ext.rerankers.llm.modes import Parts
from recbole_ext.rerankers.qwen import QwenReranker
from recbole_ext.rerankers.ranges import check_ranges
from recbole_ext.rerankers.vision.engine import VisionEngine
from recbole_ext.rerankers.vision.evidence import Evidence, ShownEvidence, WrittenEvidence
from recbole_ext.rerankers.vision.listwise import PicturedListwise
from recbole_ext.rerankers.vision.pixels import PixelCache
from recbole_ext.types import UserError, suggest

COMMANDS = {
    "caption": "captions",
    "semantic_summary": "summaries",
    "semantic_summary_small": "summaries",
}
"""Evidence in words -> what writes it."""
EVIDENCE = ("text_only", "raw_image", *COMMANDS)
OF_QWEN = {
    "engine": "local",
    "scoring": "listwise",
    "share_prefix": False,
    "suffix_batch_size": 1,
    "n_negatives": 1,
    "top_logprobs": 1,
    "concurrency": 1,
    "request": {},
}
"""What of the text model's settings is fixed: one prompt for a user, on this machine."""
MEBIBYTE = 1 << 20


class QwenVLReranker(QwenReranker):
    """Scores by a model that reads titles and pictures; trains LoRA adapters, or all but the tower.

    Raises:
        UserError: A setting is out of range, or evidence is missing.
    """

    def __init__(self, settings: Mapping[str, Any], corpus: Corpus) -> None:
        word = settings["evidence"]
        if word not in EVIDENCE:
            raise UserError(
                f"evidence takes {', '.join(EVIDENCE)}, not '{word}'{suggest(word, EVIDENCE)}"
            )
        sizes = ("max_pixels", "pixel_cache_mb", "max_text_tokens", "small_text_tokens")
        check_ranges(settings, from_one=sizes)
        for key, users in (("images", ("raw_image",)), ("texts", tuple(COMMANDS))):
            if settings[key] and word not in users:
                raise UserError(
                    f"{key} is for evidence {' or '.join(users)}, and would do nothing for {word}; "
                    "leave it out, or set evidence"
                )
        super().__init__({**settings, **OF_QWEN}, corpus)

    @cached_property
    def found(self) -> VisionLanguage:
        """The model, loaded when it is first asked.

        Raises:
            UserError: It cannot be loaded, reads no pictures, or is of another family.
        """
        settings, config = self.settings, vision_config(self._name)
        if not is_qwen_vl(config):
            raise UserError(
                f"'{self._name}' is a model of type {config.model_type}, and qwen_vl is for "
                "Qwen-VL; name one, or let this write captions: recbole-ext captions"
            )
        check_length(self._name, config, self._load.max_length)
        return load_vision_language(
            self._name,
            device=settings["device"],
            dtype=settings["dtype"],
            max_pixels=settings["max_pixels"],
            more=precision(self._load),
        )

    @cached_property
    def pixel_cache(self) -> PixelCache:
        """Pictures that were read."""
        return PixelCache(self.found.reader, self.settings["pixel_cache_mb"] * MEBIBYTE)

    @cached_property
    def evidence(self) -> Evidence:
        """What is told of a candidate."""
        word = self.settings["evidence"]
        if word in COMMANDS:
            return WrittenEvidence(self.settings["texts"], COMMANDS[word])
        if word == "raw_image":
            return ShownEvidence(self.settings["images"], self.pixel_cache)
        return Evidence()

    @cached_property
    def engine(self) -> VisionEngine:
        """What scores labels."""
        return VisionEngine(
            self.found,
            self.pixel_cache,
            batch_size=self.settings["prompt_batch_size"],
            is_compiled=self.settings["compile"],
            show_progress=self.settings["show_progress"],
        )

    @cached_property
    def mode(self) -> PicturedListwise:
        """How the engine is asked."""
        settings = self.settings
        is_small = settings["evidence"] == "semantic_summary_small"
        text_tokens = settings["small_text_tokens" if is_small else "max_text_tokens"]
        most = settings["max_title_tokens"]
        in_words = text_tokens if settings["evidence"] in COMMANDS else 0
        sizes = (settings["max_length"], settings["max_history"], most + in_words + 2)
        budget = Budget(self.engine.reader, *sizes, settings["min_title_tokens"])
        return PicturedListwise(
            Parts(self.template, budget, self.engine, settings["seed"]),
            settings["window"],
            settings["window_step"],
            settings["shuffle"],
            evidence=self.evidence,
            title_tokens=most,
            text_tokens=text_tokens,
        )

    def score(self, batch: RerankBatch) -> Tensor:
        """Return logits [B, N]; of rows in windows the places from the end."""
        self.evidence.check(batch.texts)
        n_before = len(self.evidence.problems)
        scores = super().score(batch)  # [B, N]
        if len(self.evidence.problems) > n_before:
            self.evidence.say()
        return scores

    def _digest(self, keys: Any) -> str:
        """Return a hash of weights, template, some settings and the evidence."""
        own = ("evidence", "max_pixels", "max_text_tokens", "small_text_tokens")
        about = [self.settings[key] for key in own]
        return text_hash(f"{super()._digest(keys)} {about} {self.evidence.digest()}")

    def _trainable(self) -> VisionEngine:
        engine = super()._trainable()
        assert isinstance(engine, VisionEngine)
        if self._lora is None:
            engine.freeze_tower()
        return engine

    def save(self, folder: Path) -> None:
        """Write the adapters, or all weights with the image processor."""
        super().save(folder)
        if (folder / keeping.WEIGHTS).is_dir():
            self.found.reader.image_processor.save_pretrained(folder / keeping.WEIGHTS)

    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            UserError: A file is missing or damaged.
        """
        for part in ("found", "pixel_cache", "evidence"):
            self.__dict__.pop(part, None)
        super().load(folder)
