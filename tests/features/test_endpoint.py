"""The client of an OpenAI-compatible server, against one that speaks the protocol over HTTP."""

from __future__ import annotations

import logging
import threading
import time
from email.utils import formatdate

import pytest

from recbole_ext.features.endpoint import (
    OPENAI,
    BadRequest,
    Endpoint,
    ServerFailed,
    TooLong,
)
from recbole_ext.features.pace import Pace
from recbole_ext.features.retrying import retry_after
from recbole_ext.types import UserError
from tests.features.openai_server import KEY, MESSAGE_TOO_LONG, failure

TEXT = {"model": "m", "input": ["a"]}


@pytest.fixture
def endpoint(server, clock) -> Endpoint:
    return Endpoint(pace=Pace(clock=clock, sleep=clock.sleep))


def test_a_question_is_asked_once_and_answered(server, endpoint, clock):
    found = endpoint.post("embeddings", TEXT, 1)
    assert [one["index"] for one in found["data"]] == [0]
    assert server.asked == [("embeddings", TEXT)] and clock.slept == []


def test_too_many_requests_wait_as_long_as_the_server_says(server, endpoint, clock, caplog):
    server.next = [(429, {"Retry-After": "7"}, failure("Rate limit reached"))]
    assert endpoint.post("embeddings", TEXT, 1)["data"]
    assert clock.slept == [7.0] and len(server.asked) == 2
    assert "429 Too Many Requests: Rate limit reached; try 2 of 6 in 7.0 s" in caplog.text


def test_errors_of_the_server_back_off_twice_as_long_each_time(server, endpoint, clock):
    server.next = [(500, {}, failure("oh")), (503, {}, "busy"), (429, {}, failure("slower"))]
    assert endpoint.post("embeddings", TEXT, 1)["data"]
    assert len(clock.slept) == 3
    for wait, most in zip(clock.slept, (1, 2, 4), strict=True):
        assert most / 2 <= wait <= most  # jitter takes up to half of it


def test_tries_end(server, endpoint, clock):
    server.next = [(500, {}, failure(f"oh {i}")) for i in range(6)]
    with pytest.raises(ServerFailed, match="500 Internal Server Error: oh 5, 6 times"):
        endpoint.post("embeddings", TEXT, 1)
    assert len(server.asked) == 6 and len(clock.slept) == 5


def test_a_wait_of_a_day_is_not_waited(server, endpoint, clock):
    server.next = [(429, {"Retry-After": "86400"}, failure("quota of the day"))]
    with pytest.raises(ServerFailed, match="quota of the day; it asks to wait 86400 s: try later"):
        endpoint.post("embeddings", TEXT, 1)
    assert clock.slept == [] and len(server.asked) == 1


def test_each_try_counts_for_the_limit(server, clock):
    endpoint = Endpoint(pace=Pace(requests_per_minute=1, clock=clock, sleep=clock.sleep))
    server.next = [(429, {"Retry-After": "0"}, failure("slower"))] * 2
    endpoint.post("embeddings", TEXT, 1)
    assert clock.slept == [60, 60]


def test_a_slow_answer_is_given_up_and_asked_for_again(server, clock):
    endpoint = Endpoint(timeout=1, pace=Pace(clock=clock, sleep=clock.sleep))
    never = threading.Event()
    server.next = [never]
    assert endpoint.post("embeddings", TEXT, 1)["data"]
    assert len(server.asked) == 2 and len(clock.slept) == 1
    server.next = [never, never]
    endpoint.max_retries, endpoint.timeout = 1, 0.1
    with pytest.raises(ServerFailed, match=r"no answer \(timed out\), 2 times"):
        endpoint.post("embeddings", TEXT, 1)
    never.set()


def test_a_broken_answer_is_asked_for_again(server, endpoint):
    server.next = [(200, {"Content-Length": "999"}, "{")]
    assert endpoint.post("embeddings", TEXT, 1)["data"]
    assert len(server.asked) == 2


def test_nobody_there_is_one_sentence(monkeypatch, clock):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")
    endpoint = Endpoint(
        "http://127.0.0.1:9/v1", max_retries=2, pace=Pace(clock=clock, sleep=clock.sleep)
    )
    sentence = r"http://127.0.0.1:9/v1: no answer \(.*refused\), 3 times; .* check OPENAI_BASE_URL"
    with pytest.raises(ServerFailed, match=sentence):
        endpoint.post("embeddings", TEXT, 1)
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ((400, {}, failure("no such setting")), BadRequest, "400 Bad Request: no such setting; ch"),
        ((422, {}, {"detail": "too bad"}), BadRequest, "422 .*: too bad; check the text"),
        ((400, {}, failure(MESSAGE_TOO_LONG)), TooLong, "maximum context length is 8192"),
        ((413, {}, {"error": "inputs are more"}), TooLong, "inputs are more; shorten the text"),
        ((500, {}, failure("input is too large to process")), TooLong, "too large to process"),
        (
            (429, {}, failure("You exceeded your current quota", "insufficient_quota")),
            UserError,
            "429 .*: You exceeded your current quota; check the account",
        ),
        ((403, {}, {"message": "not you"}), UserError, "403 .*: not you; check OPENAI_API_KEY"),
        ((404, {}, failure("no model 'm'")), UserError, "404 .*: no model 'm'; check .*, model"),
        ((302, {"Location": "/v2/x"}, ""), UserError, "302 Found; check OPENAI_BASE_URL"),
        ((200, {}, "<html>hello"), UserError, "answered '<html>hello', which is no JSON object"),
        ((200, {}, "[1]"), UserError, r"answered '\[1\]', which is no JSON object"),
        ((418, {}, "plain\n words"), UserError, "418 .*: plain words; check"),
    ],
)
def test_what_the_server_refuses_is_one_sentence_at_once(
    answer, kind, sentence, server, endpoint, clock
):
    server.next = [answer]
    with pytest.raises(UserError, match=sentence) as caught:
        endpoint.post("embeddings", TEXT, 1)
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    assert len(server.asked) == 1 and clock.slept == []


def test_a_limit_by_the_minute_is_no_text_that_is_too_long(server, endpoint):
    """Azure's words have both ``exceeded`` and ``token``."""
    words = "Requests have exceeded token rate limit of your current pricing tier."
    server.next = [(429, {"Retry-After": "1"}, failure(words))]
    assert endpoint.post("embeddings", TEXT, 1)["data"]


def test_a_wrong_key_is_one_sentence_without_the_key(server, clock, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "sk-wrong-key-98765"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    endpoint = Endpoint(pace=Pace(clock=clock, sleep=clock.sleep))
    with pytest.raises(
        UserError, match=r"401 .*provided: Bearer \*\*\*; check OPENAI_API_KEY"
    ) as e:
        endpoint.post("embeddings", TEXT, 1)
    server.next = [(500, {}, failure(f"oh, {wrong}"))]
    with pytest.raises(UserError):
        endpoint.post("embeddings", TEXT, 1)
    assert "oh, ***" in caplog.text
    assert wrong not in caplog.text + str(e.value) + repr(endpoint)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OPENAI_API_KEY", None, "OPENAI_API_KEY is not set; set it to the server's key"),
        ("OPENAI_API_KEY", " \n", "OPENAI_API_KEY is not set"),
        ("OPENAI_API_KEY", "sk-a\nb-secret", "OPENAI_API_KEY holds characters that no key has"),
        ("OPENAI_API_KEY", "sk-ключ", "OPENAI_API_KEY holds characters that no key has"),
        ("OPENAI_BASE_URL", "localhost:8000", "OPENAI_BASE_URL is 'localhost:8000'; set it to a"),
        ("OPENAI_BASE_URL", "http://me:pass@h/v1", "OPENAI_BASE_URL holds a user name or a query"),
        ("OPENAI_BASE_URL", "http://h/v1?key=secret", "OPENAI_BASE_URL holds a user name or a q"),
    ],
)
def test_a_bad_environment_is_one_sentence(name, value, sentence, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence) as caught:
        Endpoint()
    assert "secret" not in str(caught.value) and "pass" not in str(caught.value)


@pytest.mark.parametrize("more", [{"timeout": 0}, {"max_retries": -1}, {"concurrency": 0}])
def test_a_number_out_of_range_is_one_sentence(more, server):
    with pytest.raises(UserError, match="timeout is above 0, max_retries 0 or more, concurrency 1"):
        Endpoint(**more)


def test_without_a_url_it_is_openai_and_a_key_may_end_in_a_line(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    endpoint = Endpoint()
    assert endpoint.url == OPENAI and endpoint._key == KEY


def test_so_many_requests_are_in_work_at_once_and_answers_keep_their_order(server):
    endpoint = Endpoint(concurrency=3)
    server.pause = 0.05
    asked = [{"model": "m", "input": ["x" * n]} for n in range(1, 10)]
    endpoint.map(lambda body: endpoint.post("embeddings", body, 1), asked)
    assert 1 < server.most_at_once <= 3
    assert endpoint.map(lambda n: (time.sleep(0.01 * (n == 0)), n)[1], range(6)) == list(range(6))


def test_after_an_error_nothing_more_is_asked():
    """What was not begun is left; what was begun ends."""
    endpoint, begun, go_on = Endpoint.__new__(Endpoint), [], threading.Event()
    endpoint.concurrency = 2

    def ask(n):
        begun.append(n)
        if n == 0:
            raise UserError("no")
        go_on.wait(0.2)

    with pytest.raises(UserError, match="no"):
        endpoint.map(ask, range(20))
    assert len(begun) < 5


def test_ctrl_c_wakes_who_waits_for_a_limit():
    """A request in ten minutes: without it the second would be waited for, and then sent."""
    pace, sent, is_waiting = Pace(requests_per_minute=0.1), [], threading.Event()
    endpoint = Endpoint.__new__(Endpoint)
    endpoint.concurrency, endpoint.pace = 2, pace
    pace.wait(0)

    def ask(n):
        if n == 0:
            is_waiting.wait()
            raise KeyboardInterrupt
        is_waiting.set()
        pace.wait(0)
        sent.append(n)

    with pytest.raises(KeyboardInterrupt):
        endpoint.map(ask, range(2))
    assert sent == []


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("2.5") == 2.5 and retry_after("-1") == 0
    assert retry_after(None) is None and retry_after("soon") is None and retry_after("nan") is None
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
