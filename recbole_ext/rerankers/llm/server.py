"""A server that speaks OpenAI's protocol (vLLM, SGLang, llama.cpp): labels' log-probabilities."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_ext.features.cost import tokens_of
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.rerankers.llm.engine import FLOOR
from recbole_ext.rerankers.llm.prompts import Prompt
from recbole_ext.rerankers.llm.readers import RoughReader
from recbole_ext.types import UserError


class ServerEngine:
    """Scores labels by ``/chat/completions``, a token for each prompt; see :class:`engine.Engine`.

    Args:
        endpoint: The server.
        model: As the server names it.
        top_logprobs: Tokens of which it tells the log-probability.
        request: What the request has beside, in the server's words.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, top_logprobs: int, request: Mapping[str, Any]
    ) -> None:
        self.endpoint, self.model = endpoint, model
        self.reader = RoughReader()
        self._body = {
            "model": model,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": top_logprobs,
            **request,
        }

    def digest(self) -> str:
        """Return a hash of the server's address, the model's name and the request."""
        return text_hash(f"{self.endpoint.url} {sorted(self._body.items())}")

    def ask(self, prompts: Sequence[Prompt], labels: Sequence[str]) -> list[list[float]]:
        """Return the labels' log-probabilities; :data:`FLOOR` where the server tells none.

        Raises:
            UserError: The server refuses, fails, or tells no log-probabilities.
        """
        told = self.endpoint.map(self._ask, prompts)
        found = [[top.get(label, FLOOR) for label in labels] for top in told]
        n_missing = sum(row.count(FLOOR) for row in found)
        if n_missing:
            logging.getLogger().warning(
                "%s: %d of %d labels were not among the %d tokens whose log-probability it tells "
                "(top_logprobs); they come last, in stage one's order",
                *(self.endpoint.url, n_missing, len(found) * len(labels)),
                self._body["top_logprobs"],
            )
        return found

    ask_alike = ask  # such servers keep what prompts begin with by themselves

    def _ask(self, prompt: Prompt) -> dict[str, float]:
        body = {**self._body, "messages": prompt.messages()}
        answer = self.endpoint.post("chat/completions", body, tokens_of([prompt.plain()]) + 1)
        try:
            first = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            pairs = [(one["token"].strip(), float(one["logprob"])) for one in first]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{self.endpoint.url}: the answer of model '{self.model}' has no log-probabilities "
                "(choices[0].logprobs.content[0].top_logprobs); take a server that tells them, as "
                "vLLM does, or engine local"
            ) from None
        found: dict[str, float] = {}
        for token, logprob in pairs:  # "A" and " A" are one answer: the likelier counts
            found[token] = max(logprob, found.get(token, FLOOR))
        return found
