"""Room of a prompt: titles are shortened first, then the history; no candidate ever."""

from __future__ import annotations

import pytest
from rerankers.fake_llm import WordReader

from recbole_ext.rerankers.llm.budget import Budget
from recbole_ext.types import UserError

HISTORY = [f"h{i} " + "word " * 9 for i in range(6)]
CANDIDATES = [f"c{i} " + "word " * 9 for i in range(5)]
FIXED = 20


def count(titles):
    """A line costs a word beside its title, and the prompt 20."""
    lines = [*titles.history, *titles.candidates]
    return FIXED + sum(1 + len(line.split()) for line in lines)


def fitted(max_length, history=HISTORY, **more):
    limits = {"max_history": 20, "max_title_tokens": 32, "min_title_tokens": 3, **more}
    titles = Budget(WordReader(), max_length, **limits).fit(history, CANDIDATES, count)
    assert count(titles) <= max_length
    assert [title.split()[0] for title in titles.candidates] == [f"c{i}" for i in range(5)]
    return titles, {len(title.split()) for title in (*titles.history, *titles.candidates)}


def test_what_fits_is_left_as_it_is_but_for_its_spaces():
    titles, words = fitted(FIXED + 11 * 11)
    assert titles.history == tuple(" ".join(title.split()) for title in HISTORY) and words == {10}


def test_titles_lose_their_ends_before_the_history_loses_an_item():
    for words_each in range(3, 10):
        titles, words = fitted(FIXED + 11 * (1 + words_each) + 10)  # 10 words too few for the next
        assert len(titles.history) == 6 and words == {words_each}


def test_the_history_loses_its_oldest_when_titles_are_as_short_as_they_may_get():
    for n_history in range(1, 6):
        titles, words = fitted(FIXED + 4 * (5 + n_history) + 3)
        assert words == {3}
        assert [title.split()[0] for title in titles.history] == [
            f"h{i}" for i in range(6 - n_history, 6)
        ]


def test_what_does_not_fit_is_an_error_that_names_the_settings():
    with pytest.raises(UserError) as caught:
        fitted(FIXED + 4 * 6 - 1)
    assert str(caught.value) == (
        "a prompt with 5 candidates takes 44 tokens with titles of min_title_tokens 3 and 1 item "
        "of history, and max_length is 43; raise max_length, or lower rerank_top_k or "
        "min_title_tokens"
    )
    titles, _ = fitted(FIXED + 4 * 5, history=[])
    assert titles.history == ()


def test_the_latest_items_are_kept_and_long_titles_are_cut_where_there_is_room():
    titles, words = fitted(10_000, max_history=2, max_title_tokens=4)
    assert [title.split()[0] for title in titles.history] == ["h4", "h5"] and words == {4}
