"""On random tastes a profile that was written after the target gives it away; one before does not.

Chance is .10: 10 places of 100. By the normal approximation the other is .86: of 12 unit vectors
in 64 dimensions the target's own adds 1/12 to a score that deviates by 12**-.5 / 8, and 1.28
deviations are needed for the 10th place.

The writer is a stand-in that repeats the titles it is shown, and a text's vector is the mean of its
titles' random vectors: the most that a language model could tell. All else is what a user runs.
"""

from __future__ import annotations

import numpy as np
import pytest

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.profiles import own_cutoffs, profile_prompts
from recbole_ext.features.writing import write_texts
from recbole_ext.modules.cutoffs import usable

N_USERS, N_ITEMS, D, N_EVENTS = 400, 500, 64, 12
EPOCH = 881250000
"""Seconds, as in ml-100k: in RecBole's float32 they are known to a minute."""


class Repeats:
    source = Source("repeats", "1")

    def write(self, prompts):
        return [Written(prompt) for prompt in prompts]


class MeanOfTitles:
    source = Source("mean", "1")

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, contents):
        of = [[int(line[2:]) for line in text.split("\n")] for text in contents]
        return Encoded(np.stack([self.vectors[items].mean(0) for items in of]))  # [b, D]


class World:
    """Users who choose at random, and what a training loop would have of them."""

    def __init__(self):
        rng = np.random.default_rng(5)
        vectors = rng.normal(size=(N_ITEMS, D))
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # [N, D]
        self.chosen = np.stack([rng.permutation(N_ITEMS)[:N_EVENTS] for _ in range(N_USERS)])
        steps = rng.integers(1, 1000, size=(N_USERS, N_EVENTS))
        self.times = EPOCH + steps.cumsum(1)  # [U, E]
        self.candidates = np.empty((N_USERS, 100), dtype=int)  # the target, and 99 not chosen
        for user, items in enumerate(self.chosen):
            others = np.setdiff1d(np.arange(N_ITEMS), items)
            self.candidates[user] = [items[-1], *rng.choice(others, 99, replace=False)]

    def histories(self, stop):
        return {
            f"u{u}": [(str(i), float(t)) for i, t in zip(items[:stop], times[:stop], strict=True)]
            for u, (items, times) in enumerate(zip(self.chosen, self.times, strict=True))
        }

    def feature(self, folder, histories, cutoff):
        """Return the profiles by internal id, as a model has them."""
        items = {str(i): {"title": str(i)} for i in range(N_ITEMS)}
        prompts, cutoffs = profile_prompts(histories, items, cutoff, template="{history}")
        texts = write_texts(folder / "t", prompts, Repeats(), cutoffs=cutoffs, show_progress=False)
        subject = Subject("taste", "text", "user", "random", cutoff=texts.cutoff)
        store = build(
            folder / "f",
            texts.texts,
            MeanOfTitles(self.vectors),
            subject,
            Building("float32", show_progress=False),
            texts.cutoffs,
        )
        return store.align(["[PAD]", *(f"u{u}" for u in range(N_USERS))])

    def hit_ratio(self, aligned, pairs):
        """Return HR@10 of 100 candidates over the pairs that may be used [U]."""
        profiles = aligned.table()[1:][pairs]  # [B, D]
        items = self.vectors[self.candidates[pairs]]  # [B, 100, D]
        scores = np.einsum("bd,bkd->bk", profiles, items)  # [B, 100]
        return float(((scores > scores[:, :1]).sum(1) < 10).mean())


@pytest.fixture(scope="module")
def world():
    return World()


def usable_targets(world, aligned):
    """Return whether the pair of each user's target may use his text [U], with RecBole's times."""
    return usable(aligned.cutoffs, world.times[:, -1].astype(np.float32), np.arange(1, N_USERS + 1))


def test_a_profile_written_after_the_target_gives_it_away_and_no_pair_may_use_it(world, tmp_path):
    histories = world.histories(N_EVENTS)
    aligned = world.feature(tmp_path, histories, own_cutoffs(histories))
    assert world.hit_ratio(aligned, np.ones(N_USERS, dtype=bool)) > 0.7
    assert not usable_targets(world, aligned).any()


def test_with_a_cut_off_before_the_target_it_is_at_chance(world, tmp_path):
    """The history still holds the target; the cut-off keeps it out. Four deviations: .10 +- .06."""
    histories = world.histories(N_EVENTS)
    before = {user: events[-2][1] for user, events in histories.items()}
    aligned = world.feature(tmp_path, histories, before)
    may = usable_targets(world, aligned)
    assert 0.8 < may.mean() <= 1  # but for targets within a minute or two of the cut-off
    assert abs(world.hit_ratio(aligned, may) - 0.1) < 0.06


def test_one_cut_off_for_all_parts_the_pairs_that_leak_from_those_at_chance(world, tmp_path):
    """As with a split by time: some targets lie before the cut-off, and ``usable`` finds them."""
    cutoff = float(np.median(world.times[:, -1]))
    aligned = world.feature(tmp_path, world.histories(N_EVENTS), cutoff)
    may = usable_targets(world, aligned)
    after = world.times[:, -1] > cutoff
    assert not (may & ~after).any() and may.sum() > 0.9 * after.sum()
    assert abs(world.hit_ratio(aligned, may) - 0.1) < 0.09  # four deviations of 200 pairs
    assert world.hit_ratio(aligned, ~after) > 0.7
