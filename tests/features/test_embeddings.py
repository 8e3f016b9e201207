"""Vectors from a server: their order, their size, what is too long, what may leave this machine."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.cost import Estimate, confirming
from recbole_ext.features.embeddings import EndpointEncoder
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.features.pace import Pace
from recbole_ext.types import UserError
from tests.features.openai_server import KEY, LIMIT, failure, vector_of

SUBJECT = Subject("title", "text", "item", "tiny")
TEXTS = {f"i{i}": f"text {i}" for i in range(10)}
LONG = "x" * (LIMIT + 1)


@pytest.fixture
def encoder(server, clock) -> EndpointEncoder:
    endpoint = Endpoint(pace=Pace(clock=clock, sleep=clock.sleep))
    return EndpointEncoder(endpoint, "small", request_size=4)


def make(folder, texts, encoder, **more):
    return build(folder, texts, encoder, SUBJECT, Building(show_progress=False, **more))


def test_vectors_come_in_the_order_of_the_texts(server, encoder, tmp_path):
    store = make(tmp_path / "f", TEXTS, encoder)
    for row, text in enumerate(TEXTS.values()):
        assert (store.values[row] == vector_of(text)).all()
    assert sorted(len(body["input"]) for _, body in server.asked) == [2, 4, 4]
    assert {body["model"] for _, body in server.asked} == {"small"}
    assert {body["encoding_format"] for _, body in server.asked} == {"float"}
    source = store.manifest.source
    assert (source.encoder, source.settings) == ("small", {"endpoint": server.url})


def test_only_what_is_new_is_sent_and_another_model_is_all_new(server, encoder, tmp_path):
    make(tmp_path / "f", TEXTS, encoder)
    server.asked.clear()
    make(tmp_path / "f", {**TEXTS, "i3": "changed"}, encoder)
    assert server.inputs() == ["changed"]
    server.asked.clear()
    other = EndpointEncoder(encoder.endpoint, "small", settings={"dimensions": 4})
    make(tmp_path / "f", TEXTS, other)
    assert len(server.inputs()) == 10 and server.asked[0][1]["dimensions"] == 4


def test_a_text_that_is_too_long_is_a_problem_of_its_row(server, encoder, tmp_path):
    texts = {**TEXTS, "i2": LONG, "i9": LONG + "y"}
    store = make(tmp_path / "f", texts, encoder)
    assert list(store.rows["present"]) == [i not in (2, 9) for i in range(10)]
    assert "maximum context length" in store.rows["problem"][2]
    for row, (token, text) in enumerate(TEXTS.items()):
        if texts[token] == text:
            assert (store.values[row] == vector_of(text)).all()
    server.asked.clear()
    make(tmp_path / "f", texts, encoder)
    assert server.inputs() == [LONG, LONG + "y", LONG, LONG + "y"]  # together, then one by one


def test_a_text_at_which_the_server_fails_each_time_is_a_problem_of_its_row(
    server, clock, tmp_path
):
    server.fails_at = "text 2"
    endpoint = Endpoint(pace=Pace(clock=clock, sleep=clock.sleep), max_retries=1, concurrency=1)
    store = make(tmp_path / "f", TEXTS, EndpointEncoder(endpoint, "small", request_size=4))
    assert list(store.rows["present"]) == [i != 2 for i in range(10)]
    assert "500 Internal Server Error: out of memory, 2 times" in store.rows["problem"][2]
    for row in (0, 1, 3, 9):
        assert (store.values[row] == vector_of(f"text {row}")).all()


def test_a_server_that_fails_at_any_text_ends_the_build(server, clock, tmp_path):
    server.fails_at = ""  # which is in every text
    endpoint = Endpoint(pace=Pace(clock=clock, sleep=clock.sleep), max_retries=1, concurrency=1)
    with pytest.raises(UserError, match="500 .*out of memory, 2 times; what was done is kept"):
        make(tmp_path / "f", TEXTS, EndpointEncoder(endpoint, "small", request_size=10))
    assert len(server.asked) == 4  # the first request and the harmless one, twice each


def test_a_batch_of_texts_that_are_too_long_does_not_fix_the_size(server, encoder, tmp_path):
    store = make(tmp_path / "f", {"i0": LONG, "i1": "text"}, encoder, batch_size=1)
    assert store.manifest.shape == (2, 4) and (store.values[1] == vector_of("text")).all()


def test_another_dimension_ends_the_build(server, encoder, tmp_path):
    wrong = {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}
    server.next = [None, (200, {}, wrong)]
    with pytest.raises(UserError, match="model 'small' gives vectors of 4 and of 2 numbers"):
        make(tmp_path / "f", {"i0": "a", "i1": "b"}, encoder, batch_size=1)
    server.asked.clear()
    make(tmp_path / "f", {"i0": "a", "i1": "b"}, encoder, batch_size=1)
    assert server.inputs() == ["b"]  # what was had before is kept


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1.0]}],
        [{"index": i, "embedding": [1.0]} for i in (0, 0)],
        [{"index": i, "embedding": [1.0]} for i in (0, 1, 1)],
        [{"index": i, "embedding": "AACA"} for i in (0, 1)],
        [{"index": i} for i in (0, 1)],
        [{"index": i, "embedding": [[1.0]]} for i in (0, 1)],
        None,
    ],
)
def test_an_answer_that_lacks_a_vector_is_refused(data, server, encoder):
    server.next = [(200, {}, {"data": data})]
    with pytest.raises(UserError, match="has no vector for each of 2 texts; is it a model of emb"):
        encoder.encode(["a", "b"])


def test_nothing_is_sent_before_it_is_confirmed(server, encoder, tmp_path):
    asked = []

    def decide(answer):
        return confirming(lambda e: (asked.append(e), answer)[1], price_per_million=0.5)

    with pytest.raises(UserError, match="feature 'title': not confirmed, so nothing was encoded"):
        make(tmp_path / "f", TEXTS, encoder, confirm=decide(False))
    assert server.asked == []
    make(tmp_path / "f", {**TEXTS, "again": "text 1"}, encoder, confirm=decide(True))
    assert asked == [Estimate(10, 60, price_per_million=0.5)] * 2  # equal texts are sent once
    make(tmp_path / "f", TEXTS, encoder, confirm=decide(False))
    assert len(asked) == 2 and len(server.inputs()) == 10  # nothing is new, nobody is asked


def test_an_estimate_says_how_it_is_made():
    known = Estimate(1000, 4_000_000, price_per_million=0.02)
    assert known.n_tokens == 1e6 and known.price == pytest.approx(0.02)
    for words in ("1,000 new texts", "4,000,000 characters", "about 1,000,000 tokens (4 char"):
        assert words in str(known)
    assert "about 0.02 in the currency" in str(known)
    written = Estimate(2, 400, 512, 3.0, 15.0)
    assert written.price == pytest.approx((100 * 3 + 512 * 15) / 1e6)
    assert "at most 512 written" in str(written)
    for unknown in (Estimate(1, 4), Estimate(1, 4, 256, 3.0)):
        assert unknown.price is None and "the price is not known" in str(unknown)


def test_the_key_is_in_no_file_and_no_log(server, encoder, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.next = [(500, {}, failure(f"I know {KEY}")), (429, {"Retry-After": "1"}, KEY)]
    make(tmp_path / "f", {**TEXTS, "i2": LONG}, encoder)
    server.next = [(400, {}, failure(f"context length of {KEY}"))] * 3
    make(tmp_path / "f", {**TEXTS, "i2": LONG, "new": "new"}, encoder)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4 and "I know ***" in caplog.text
    assert KEY not in caplog.text
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_pace_counts_the_tokens_that_are_sent(server, clock):
    pace = Pace(tokens_per_minute=60, clock=clock, sleep=clock.sleep)  # a second a token
    encoder = EndpointEncoder(Endpoint(pace=pace, concurrency=1), "small", request_size=2)
    encoder.encode(["a" * 8, "b" * 12, "c" * 40, "d"])  # 20 characters, then 41
    assert clock.slept == pytest.approx([5])
    assert np.allclose(encoder.encode(["e"]).values[0], vector_of("e"))
    assert clock.slept == pytest.approx([5, 10.25])


def refusing(server, *bad: str):
    """Let the server refuse requests that have one of some texts, as for its content."""
    usual = server._usual

    def answer(path, key, body):
        if any(text in bad for text in body["input"]):
            return 400, {}, failure("the input is invalid")
        return usual(path, key, body)

    server._usual = answer


def test_a_text_that_is_refused_is_a_problem_of_its_row(server, encoder, tmp_path):
    usual = server._usual
    refusing(server, "text 3", "text 8")
    store = make(tmp_path / "f", TEXTS, encoder)
    assert list(store.rows["present"]) == [i not in (3, 8) for i in range(10)]
    for row in (3, 8):
        assert "400 Bad Request: the input is invalid" in store.rows["problem"][row]
    for row, text in enumerate(TEXTS.values()):
        if row not in (3, 8):
            assert (store.values[row] == vector_of(text)).all()
    server._usual = usual
    server.asked.clear()
    store = make(tmp_path / "f", TEXTS, encoder)  # the next build tries them again
    assert server.inputs() == ["text 3", "text 8"] and store.rows["present"].all()


def test_a_server_that_refuses_whatever_it_is_sent_is_asked_twice(server, clock, tmp_path):
    """Settings that it does not take are no problem of each text."""
    encoder = EndpointEncoder(Endpoint(pace=Pace(clock=clock, sleep=clock.sleep)), "small")
    server._usual = lambda path, key, body: (400, {}, failure("unknown model small"))
    with pytest.raises(UserError, match="unknown model small; check the text and the settings"):
        make(tmp_path / "f", TEXTS, encoder)
    assert [len(body["input"]) for _, body in server.asked] == [10, 1]
