"""Listwise and pointwise by an engine that knows: scores come back where they belong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rerankers.contracts import ITEMS, tiny_batch
from rerankers.fake_llm import LINE, KnowingEngine, WordReader

from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.llm import listwise, pointwise
from recbole_ext.rerankers.llm.budget import Budget
from recbole_ext.rerankers.llm.labels import LETTERS
from recbole_ext.rerankers.llm.modes import Parts
from recbole_ext.rerankers.llm.prompts import template_of
from recbole_ext.types import UserError

BATCH = tiny_batch(6, 8)


def number(title: str) -> float:
    """Return the number of an item by its title; item i39 has none and goes by its token."""
    return float(title.removeprefix("Title ").removeprefix("i").split()[0])


def parts_of(engine, fields, seed=1):
    name = "qwen_listwise" if fields is listwise.FIELDS else "qwen_pointwise"
    template = template_of(name, None, fields)
    return Parts(template, Budget(WordReader(), 10_000, 20, 32, 8), engine, seed)


def make_listwise(value=number, window=None, step=None, shuffle=True, seed=1):
    engine = KnowingEngine(value)
    return listwise.Listwise(parts_of(engine, listwise.FIELDS, seed), window, step, shuffle), engine


def make_pointwise(n_negatives=2):
    engine = KnowingEngine(number)
    return pointwise.Pointwise(parts_of(engine, pointwise.FIELDS), n_negatives, True), engine


def numbers(batch):
    return [[number(item) for item in row] for row in batch.candidates]


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_letters_scores_come_back_in_the_candidates_order(shuffle):
    mode, engine = make_listwise(shuffle=shuffle)
    assert mode.score(BATCH) == numbers(BATCH)
    assert len(engine.asked) == len(BATCH), "one prompt for a user"


def test_a_prompt_shows_every_candidate_once_in_an_order_of_user_and_seed():
    orders = set()
    for seed in range(5):
        mode, engine = make_listwise(seed=seed)
        for row in range(len(BATCH)):
            mode.score(BATCH.rows([row]))
            titles = [title for _, title in LINE.findall(engine.asked[-1].user)]
            texts = [BATCH.text_of(item) for item in BATCH.candidates[row]]
            assert sorted(titles) == sorted(texts)
            if row == 0:
                orders.add(tuple(titles))
    assert len(orders) == 5
    mode, engine = make_listwise(shuffle=False)
    mode.score(BATCH.rows([0]))
    titles = [title for _, title in LINE.findall(engine.asked[-1].user)]
    assert titles == [BATCH.text_of(item) for item in BATCH.candidates[0]]


def test_a_model_that_always_says_a_prefers_no_place_of_stage_one():
    """Of 8 candidates each is in the first place for some of 100 users."""
    batch = replace(BATCH.rows([0] * 100), users=[f"u{user}" for user in range(100)], targets=None)
    mode, engine = make_listwise()
    engine._answer = lambda text, labels: [float(label == "A") for label in labels]
    first = {scores.index(1.0) for scores in mode.score(batch)}
    assert first == set(range(8))


def many(n: int, n_users: int = 3) -> RerankBatch:
    """Users with n candidates each, the first of them with few."""
    generator = torch.Generator().manual_seed(5)
    items = [f"i{i}" for i in range(n)]
    rows = [
        [items[i] for i in torch.randperm(n, generator=generator).tolist()] for _ in range(n_users)
    ]
    rows[0] = rows[0][:4]
    texts = {item: f"Title {item[1:]} of {n}" for item in items}
    users = [f"u{user}" for user in range(n_users)]
    return RerankBatch(users, [ITEMS[:3]] * n_users, rows, torch.zeros(n_users, n), texts)


def test_more_candidates_than_letters_are_an_error_that_names_the_ways_out():
    mode, _ = make_listwise()
    sentence = "^60 candidates for 50 labels; .*rerank_top_k to 50.*wind"
    with pytest.raises(UserError, match=sentence):
        mode.score(many(60))
    with pytest.raises(UserError, match=sentence):  # or what was learned could not be used
        mode.examples(replace(many(60), targets=[["i1"]] * 3), 1, 0)


@pytest.mark.parametrize(("n", "window", "step"), [(60, 50, None), (23, 7, 3), (9, 8, 1)])
def test_windows_bring_the_best_to_the_top(n, window, step):
    mode, engine = make_listwise(window=window, step=step)
    batch = many(n)
    few, *scores = mode.score(batch)
    assert few == [number(item) for item in batch.candidates[0]]
    for row, found in zip(batch.candidates[1:], scores, strict=True):
        assert sorted(found) == list(range(1, n + 1)), "a place for each"
        ranked = sorted(row, key=lambda item, f=found, r=row: -f[r.index(item)])
        sure = window - (step or window // 2)
        assert ranked[:sure] == [f"i{i}" for i in range(n - 1, n - 1 - sure, -1)]
    assert all(len(LINE.findall(prompt.user)) <= window for prompt in engine.asked)


@pytest.mark.parametrize(
    ("window", "step", "sentence"),
    [
        (51, None, "window takes 2 to 50 candidates, not 51"),
        (1, None, "window takes 2 to 50 candidates, not 1"),
        (10, 10, "window_step takes 1 to 9, below window, not 10"),
        (10, 0, "window_step takes 1 to 9, below window, not 0"),
    ],
)
def test_windows_that_cannot_be(window, step, sentence):
    with pytest.raises(UserError, match=sentence):
        make_listwise(window=window, step=step)


def test_pointwise_is_the_difference_of_yes_and_no_for_each_candidate():
    mode, engine = make_pointwise()
    assert mode.score(BATCH) == numbers(BATCH)
    assert len(engine.asked) == sum(map(len, BATCH.candidates))


def test_a_listwise_example_asks_for_the_target_in_an_order_of_each_epoch():
    mode, _ = make_listwise()
    texts = set()
    for epoch in range(4):
        (example,) = mode.examples(BATCH, 1, epoch)
        titles = [title for _, title in LINE.findall(example.prompt.user)]
        (target,) = BATCH.targets[1]
        assert titles[example.answer] == BATCH.text_of(target)
        assert example.n_labels == len(BATCH.candidates[1])
        texts.add(example.prompt.user)
        assert mode.examples(BATCH, 1, epoch) == [example]
    assert len(texts) == 2, "two candidates have two orders"


def test_of_many_candidates_training_shows_the_target_among_the_best():
    mode, _ = make_listwise(window=5)
    batch = many(20)
    target = batch.candidates[1][17]
    batch = replace(batch, targets=[[batch.candidates[0][0]], [target], [target]])
    (example,) = mode.examples(batch, 1, 0)
    titles = [title for _, title in LINE.findall(example.prompt.user)]
    best = [*batch.candidates[1][:4], target]
    assert sorted(titles) == sorted(batch.text_of(item) for item in best)
    assert titles[example.answer] == batch.text_of(target) and example.n_labels == 5


def test_pointwise_examples_are_the_target_and_other_candidates():
    mode, _ = make_pointwise(n_negatives=3)
    row = 4
    assert len(BATCH.candidates[row]) > 4
    drawn = set()
    for epoch in range(6):
        examples = mode.examples(BATCH, row, epoch)
        titles = [example.prompt.user.rpartition(": ")[2] for example in examples]
        (target,) = BATCH.targets[row]
        assert [example.answer for example in examples] == [0, 1, 1, 1]
        assert titles[0] == BATCH.text_of(target) and len(set(titles)) == 4
        drawn.add(tuple(titles[1:]))
    assert len(drawn) > 1


def test_there_are_fifty_letters_and_each_is_another():
    assert len(set(LETTERS)) == 50 and LETTERS[25:27] == ("Z", "a") and LETTERS[-1] == "x"
