"""A server of OpenAI's protocol as the engine: labels' log-probabilities over HTTP."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from rerankers.contracts import RerankerContract, TinyCorpus, tiny_batch
from rerankers.fake_llm import LINE

from recbole_ext.rerankers.build import build_reranker
from recbole_ext.rerankers.llm.server import FLOOR
from recbole_ext.types import UserError
from tests.features.openai_server import KEY, failure, serving


def logprob_of(title: str) -> float:
    """Return what a title alone decides."""
    return -1 - float(title.removeprefix("Title ").removeprefix("i").split()[0]) / 8


def told(body: dict) -> dict:
    """Answer as vLLM does: the likeliest tokens, among them some that are no label."""
    text = body["messages"][-1]["content"]
    shown = {letter: logprob_of(title) for letter, title in LINE.findall(text)}
    if not shown:
        yes = math.exp(logprob_of(text.rpartition(": ")[2]))
        shown = {"yes": math.log(yes), " no": math.log(1 - yes)}
    likely = sorted({**shown, "The": -0.5, " A": -9.0}.items(), key=lambda pair: -pair[1])
    top = [
        {"token": token, "logprob": value, "bytes": list(token.encode())}
        for token, value in likely[: body["top_logprobs"]]
    ]
    content = [{**top[0], "top_logprobs": top}]
    message = {"role": "assistant", "content": top[0]["token"]}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}}]}


@pytest.fixture
def server(monkeypatch):
    with serving() as found:
        monkeypatch.setenv("OPENAI_BASE_URL", found.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("no_proxy", "*")
        usual = found._usual
        found._usual = lambda path, key, body: (
            (200, {}, told(body)) if "logprobs" in body else usual(path, key, body)
        )
        yield found


SETTINGS = {"engine": "server", "model": "big"}


class TestServed(RerankerContract):
    name, settings = "qwen", SETTINGS

    @pytest.fixture(autouse=True)
    def _with_a_server(self, server):
        pass

    def test_training_is_done_and_kept_or_refused(self, reranker, given, corpus, batch, tmp_path):
        """A model behind a server is trained there."""
        with pytest.raises(UserError, match="behind a server is trained there; set engine to loc"):
            reranker.fit(batch, None, tmp_path)


def ranker(**more):
    return build_reranker("qwen", {**SETTINGS, **more}, TinyCorpus(), seed=1)


def test_the_request_is_that_of_the_protocol(server):
    ranker().score(tiny_batch().rows([0]))
    ((path, body),) = server.asked
    messages = body.pop("messages")
    assert path == "chat/completions" and [m["role"] for m in messages] == ["system", "user"]
    assert len(LINE.findall(messages[1]["content"])) == 8
    assert body == {
        "model": "big",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    ranker(request={}).score(tiny_batch().rows([0]))
    assert "chat_template_kwargs" not in server.asked[1][1]


def test_scores_are_the_labels_log_probabilities(server):
    batch = tiny_batch()
    scores = ranker().score(batch)
    for row, items in enumerate(batch.candidates):
        expected = [logprob_of(batch.text_of(item)) for item in items]
        torch.testing.assert_close(scores[row, : len(items)], torch.tensor(expected))


def test_pointwise_is_the_log_odds_of_yes_whatever_space_is_before_a_word(server):
    batch = tiny_batch().rows([0])
    scores = ranker(scoring="pointwise").score(batch)
    yes = torch.tensor([logprob_of(batch.text_of(i)) for i in batch.candidates[0]]).exp()
    torch.testing.assert_close(scores[0], yes.logit(), rtol=1e-5, atol=1e-5)
    assert len(server.asked) == 8


def test_pointwise_candidates_of_which_nothing_is_told_come_last(server, monkeypatch):
    """Where the server tells neither yes nor no, the odds are not even."""
    batch = tiny_batch().rows([0])
    quiet = set(batch.candidates[0][2:5])
    texts = {batch.text_of(item) for item in quiet}

    def sometimes(path, key, body):
        answer = told(body)
        if body["messages"][-1]["content"].rpartition(": ")[2] in texts:
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            top[:] = [{"token": "Well", "logprob": -0.1}]
        return 200, {}, answer

    monkeypatch.setattr(server, "_usual", sometimes)
    scores = ranker(scoring="pointwise").score(batch)[0].tolist()
    by_item = dict(zip(batch.candidates[0], scores, strict=True))
    assert max(by_item[item] for item in quiet) < min(by_item[i] for i in by_item if i not in quiet)


def test_labels_of_which_nothing_is_told_come_last_and_are_counted(server, caplog):
    batch = tiny_batch().rows([0])
    with caplog.at_level(logging.WARNING):
        scores = ranker(top_logprobs=4).score(batch)  # one of the four is no label
    assert "5 of 8 labels were not among the 4 tokens" in caplog.text
    best = sorted(batch.candidates[0], key=lambda item: -logprob_of(batch.text_of(item)))[:3]
    for item, score in zip(batch.candidates[0], scores[0].tolist(), strict=True):
        assert (score == FLOOR) == (item not in best)


@pytest.mark.parametrize("logprobs", [None, {"content": []}, {"content": [{"token": "A"}]}])
def test_a_server_that_tells_no_log_probabilities_is_one_sentence(logprobs, server):
    server.next = [(200, {}, {"choices": [{"message": {"content": "A"}, "logprobs": logprobs}]})]
    with pytest.raises(UserError, match="model 'big' has no log-probabilities .*engine local"):
        ranker().score(tiny_batch().rows([0]))


def test_what_the_server_refuses_is_said_in_its_words(server):
    server.next = [(400, {}, failure("Unrecognized argument: chat_template_kwargs"))]
    with pytest.raises(UserError, match="400 .*Unrecognized argument: chat_template_kwargs; check"):
        ranker().score(tiny_batch().rows([0]))


def test_scores_are_kept_by_server_model_and_prompt(server, tmp_path):
    batch = tiny_batch()
    first = ranker(cache_dir=str(tmp_path)).score(batch)
    assert len(server.asked) == len(batch)
    assert torch.equal(ranker(cache_dir=str(tmp_path)).score(batch), first)
    assert len(server.asked) == len(batch), "the second time from the cache"
    ranker(cache_dir=str(tmp_path), max_history=1).score(batch)
    ranker(cache_dir=str(tmp_path), model="other").score(batch)
    assert len(server.asked) == 3 * len(batch)
