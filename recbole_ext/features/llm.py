"""Writers: language models that answer prompts, on this machine or behind an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from recbole_ext.features.cost import tokens_of
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.endpoint import BadRequest, Endpoint, ServerFailed
from recbole_ext.features.hub import near_folder, quiet_hub, reason
from recbole_ext.features.manifest import Source
from recbole_ext.features.text_encoders import weights_hash
from recbole_ext.types import UserError


@dataclass(frozen=True)
class Written:
    """What came of a prompt.

    Attributes:
        text: ``None`` where there is none.
        problem: Why there is none, or what is amiss with it (it was cut off).
    """

    text: str | None
    problem: str | None = None


class Writer(Protocol):
    """Answers prompts."""

    source: Source

    def write(self, prompts: Sequence[Any]) -> list[Written]:
        """Return what came of each prompt."""


def written(text: str | None, is_cut: bool, limit: Any) -> Written:
    """Return what a text is worth: none where it is empty, with a flaw where it was cut off."""
    text = (text or "").strip()
    if not text:
        return Written(None, "the model wrote nothing")
    return Written(text, f"cut off after {limit} tokens" if is_cut else None)


def too_long(n_tokens: int, max_new_tokens: int, most: int | None) -> Written | None:
    """Return what comes of a prompt that leaves no room for the answer, ``None`` for others.

    Args:
        n_tokens: Of the prompt.
        max_new_tokens: Of the answer.
        most: What the model reads, where that is known.
    """
    if most is None or n_tokens + max_new_tokens <= most:
        return None
    return Written(
        None,
        f"the prompt has {n_tokens} tokens, and the model takes {most} with max_new_tokens "
        f"{max_new_tokens}; shorten the prompt",
    )


class EndpointWriter:
    """Writes by ``/chat/completions``, a request for each prompt.

    Args:
        endpoint: The server.
        model: As the server names it.
        settings: What the request has beside the prompt, in the protocol's words.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.endpoint, self.model = endpoint, model
        self.settings = dict(settings or {"max_tokens": 256, "temperature": 0})
        self.source = Source(model, model, {"endpoint": endpoint.url, **self.settings})

    def write(self, prompts: Sequence[str]) -> list[Written]:
        """Return what came of each prompt.

        Raises:
            UserError: The server refuses anybody, or all of several prompts alike.
        """
        found = self.endpoint.map(self._ask, prompts)
        if len(found) > 1 and all(isinstance(one, UserError) for one in found):
            raise UserError(f"all of {len(found)} prompts failed, the first so: {found[0]}")
        return [Written(None, str(one)) if isinstance(one, UserError) else one for one in found]

    def _ask(self, prompt: str) -> Written | UserError:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        n_tokens = tokens_of([prompt]) + self._mostwritten()
        try:
            answer = self.endpoint.post("chat/completions", {**body, **self.settings}, n_tokens)
        except (BadRequest, ServerFailed) as error:  # of this prompt, until all fail
            return error
        try:
            choice = answer["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise UserError(
                f"{self.endpoint.url}: the answer of model '{self.model}' has no message; is it a "
                "model of chat? name one that is"
            ) from None
        if reason == "content_filter":
            return Written(None, "the server's content filter held the answer back")
        return written(text, reason == "length", self._mostwritten() or "the server's limit of")

    def _mostwritten(self) -> int:
        return self.settings.get("max_tokens") or self.settings.get("max_completion_tokens") or 0


class LocalWriter:
    """Writes by a causal language model of transformers: greedy, unless there is a temperature.

    Args:
        model: Folder, or name on the Hugging Face hub.
        max_new_tokens: Most tokens of a text.
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        seed: Of what is drawn.
        batch_size: Prompts at a time.
        device: Where it runs; by default a GPU where there is one.
        template_settings: Given to the chat template: ``{"enable_thinking": False}``.

    Raises:
        UserError: transformers is missing, or cannot load the model.
    """

    def __init__(
        self,
        model: str,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 2020,
        batch_size: int = 8,
        device: str | None = None,
        template_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer, self.model = load_language_model(model, self.device)
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.temperature, self.seed = temperature, seed
        self.template_settings = dict(template_settings or {})
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        if temperature:
            settings["seed"] = seed
        if self.tokenizer.chat_template is not None:
            settings["chat_template"] = text_hash(self.tokenizer.chat_template)
        settings |= self.template_settings
        self.source = Source(model, weights_hash(self.model), settings)

    def write(self, prompts: Sequence[str]) -> list[Written]:
        """Return what came of each prompt."""
        found: dict[int, Written] = {}
        asked = [self._as_asked(prompt) for prompt in prompts]
        most = getattr(self.model.config, "max_position_embeddings", None)
        for i, tokens in enumerate(asked):
            if problem := too_long(len(tokens), self.max_new_tokens, most):
                found[i] = problem
        left = [i for i in range(len(asked)) if i not in found]
        for begin in range(0, len(left), self.batch_size):
            places = left[begin : begin + self.batch_size]
            texts = self._generate([asked[i] for i in places])
            found.update(zip(places, texts, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _as_asked(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt, as a chat where the tokenizer has a template for it."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer(prompt)["input_ids"]
        chat = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, **self.template_settings
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def _generate(self, asked: list[list[int]]) -> list[Written]:
        """Return what follows some prompts, padded on the left: the model goes on at the right."""
        padding = self.tokenizer.pad_token_id
        ids, mask = left_padded(asked, padding, self.device)  # [B, T] each
        drawn = (
            {"do_sample": True, "temperature": self.temperature}
            if self.temperature
            else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        )
        if self.temperature:
            torch.manual_seed(self.seed)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=padding,
            **drawn,
        )[:, ids.shape[1] :]  # [B, new]
        ends = self.model.generation_config.eos_token_id
        is_cut = ~torch.isin(output, ids_of(ends, output)).any(1)  # [B]
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        pairs = zip(texts, is_cut.tolist(), strict=True)
        return [written(text, cut, self.max_new_tokens) for text, cut in pairs]


def left_padded(
    rows: Sequence[Sequence[int]], padding: int, device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """Return rows of tokens that all end at the right, and where they are [B, T] each."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), padding, device=device)  # [B, T]
    mask = torch.zeros_like(ids)  # [B, T]
    for row, tokens in enumerate(rows):
        ids[row, length - len(tokens) :] = torch.tensor(tokens, device=device)
        mask[row, length - len(tokens) :] = 1
    return ids, mask


def ids_of(ends: int | list[int] | None, like: Tensor) -> Tensor:
    """Return the tokens that end a text as a tensor: a model has none, one or several."""
    ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
    return torch.tensor(ends, dtype=like.dtype, device=like.device)  # [n]


def load_language_model(
    model: str, device: str, *, dtype: str = "auto", **more: Any
) -> tuple[Any, Any]:
    """Return the tokenizer, which pads on the left, and a causal language model of transformers.

    Args:
        model: Folder, or name on the Hugging Face hub.
        device: Where it runs.
        dtype: Of its weights; ``auto`` as they were saved.
        more: Given to the model's ``from_pretrained``.

    Raises:
        UserError: transformers is missing, or cannot load the model.
    """
    quiet_hub()
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UserError(
            "a local language model needs transformers: pip install 'recbole-ext[llm]'"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        found: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **more)
        if "device_map" not in more:  # which places the weights as they are loaded
            found.to(device)
        found.eval()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"cannot load a language model from '{model}'{near_folder(model)} ({reason(error)}); "
            "give the folder of one, or its name on the Hugging Face hub"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of '{model}' has no token for padding and none for the end; save one "
            "that has"
        )
    return tokenizer, found
