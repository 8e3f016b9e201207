"""Merges by hand, and TREC runs there and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pipeline.test_candidates import MANIFEST
from rerankers.contracts import ITEMS, tiny_batch

from recbole_ext.pipeline.candidates import Candidates
from recbole_ext.pipeline.merge import in_turns, merge, rrf
from recbole_ext.pipeline.trec import export_trec, import_trec
from recbole_ext.types import UserError

A, B = ["x", "y", "z"], ["z", "w", "x", "v"]


def test_reciprocal_ranks_are_summed():
    expected = {
        "z": 1 / 63 + 1 / 61,
        "x": 1 / 61 + 1 / 63,
        "y": 1 / 62,
        "w": 1 / 62,
        "v": 1 / 64,
    }
    found = rrf([A, B])
    assert dict(found) == pytest.approx(expected)
    assert [item for item, _ in found] == ["x", "z", "y", "w", "v"]


@pytest.mark.parametrize(
    ("quotas", "items"),
    [
        (None, ["x", "z", "y", "w", "v"]),  # x of A; z of B; y of A; w of B; A is used up; v of B
        ([2, 1], ["x", "z", "y"]),
        ([1, 2], ["x", "z", "w"]),
        ([9, 1], ["x", "z", "y"]),
        ([0, 3], ["z", "w", "x"]),
    ],
)
def test_lists_give_in_turns_what_is_not_there(quotas, items):
    found = in_turns([A, B], quotas)
    assert [item for item, _ in found] == items
    assert [score for _, score in found] == pytest.approx([1 / (i + 1) for i in range(len(items))])


def sources() -> list[Candidates]:
    first, second = tiny_batch(seed=0), tiny_batch(seed=1)
    second = replace(second, histories=first.histories, targets=first.targets)
    other = replace(MANIFEST, retriever={"model": "BPR", "folder": "/runs/b", "checkpoint": "d"})
    return [
        Candidates(MANIFEST, {"valid": first, "test": first}),
        Candidates(other, {"test": second.rows([4, 3, 2, 1, 0])}),  # u5 has none
    ]


def test_every_users_lists_are_merged_whatever_their_order():
    first, second = sources()
    merged = merge([first, second], "rrf", k=6)
    assert list(merged.splits) == ["test"] and merged.manifest.name == "rrf of SASRec, BPR"
    rows = merged.split("test")
    assert list(rows.users) == list(first.split("test").users)
    for i, user in enumerate(rows.users):
        other = second.split("test")
        theirs = other.candidates[other.users.index(user)] if user != "u5" else []
        expected = rrf([first.split("test").candidates[i], theirs])[:6]
        assert rows.candidates[i] == [item for item, _ in expected]
    assert rows.targets == first.split("test").targets


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "e" * 64}, "SASRec have the fingerprint ffffffffffff, .* eeeeeeeeeeee"),
        ({"history": "mask"}, "have the history keep, those of BPR mask"),
        ({"config": {"eval_args": {"order": "RO"}}}, "have the eval_args .*'TO'.* those of BPR"),
        ({"config": {"eval_args": {"order": "TO", "split": 3}}}, "of BPR .*'split"),
    ],
)
def test_candidates_that_answer_other_questions_are_not_merged(change, sentence):
    first, second = sources()
    second = replace(second, manifest=replace(second.manifest, **change))
    with pytest.raises(UserError, match=sentence):
        merge([first, second], "union")


def test_a_split_by_chance_is_another_with_another_seed():
    first, second = sources()
    by_chance = [
        replace(one, manifest=replace(one.manifest, config={"eval_args": {"order": "RO"}, **seed}))
        for one, seed in ((first, {"seed": 7}), (second, {"seed": 8}))
    ]
    with pytest.raises(UserError, match="'seed': 7.* those of BPR .*'seed': 8"):
        merge(by_chance, "union")


def test_how_runs_were_ranked_does_not_keep_them_apart():
    first, second = sources()
    config = {"eval_args": {"order": "TO", "mode": "uni100"}}
    second = replace(second, manifest=replace(second.manifest, config=config))
    assert len(merge([first, second], "union").split("test")) == 6


@pytest.mark.parametrize(
    ("way", "quotas", "n", "sentence"),
    [
        ("rff", None, 2, "takes union, quota, rrf, not 'rff'; did you mean 'rrf'"),
        ("rrf", None, 1, "two or more folders"),
        ("rrf", [1, 2], 2, "the other ways take none"),
        ("quota", None, 2, "a number for each of the 2 folders, as in --quota=100,100"),
        ("quota", [1], 2, "a number for each of the 2 folders"),
    ],
)
def test_a_merge_that_cannot_be_meant_is_one_sentence(way, quotas, n, sentence):
    with pytest.raises(UserError, match=sentence):
        merge(sources()[:n], way, quotas)


def test_sources_without_a_common_split_are_refused():
    with pytest.raises(UserError, match="no split in common of valid"):
        merge(sources(), "union", names=["valid"])


# ---- TREC


def test_a_trec_run_comes_back_as_it_was(tmp_path):
    first = sources()[0]
    path = tmp_path / "run.trec"
    export_trec(path, first.split("test"), "SASRec")
    row = tiny_batch()
    line = f"u0 Q0 {row.candidates[0][0]} 1 {row.scores[0, 0].item()!r} SASRec"
    assert path.read_text().splitlines()[0] == line
    back = import_trec(path, first, "test", ITEMS)
    assert back.split("test").candidates == first.split("test").candidates
    assert torch.equal(back.split("test").scores, first.split("test").scores)
    assert back.manifest.name == "run.trec" and list(back.splits) == ["test"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("u0 Q0 i1 1 0.5", "line 1: no line of a TREC run"),
        ("u0 Q0 i1 1 0.5 t\nu0 Q0 i2 2 best t", "line 2: no line of a TREC run"),
        ("u0 Q0 i1 1 nan t", "line 1: no line of a TREC run"),
        ("u77 Q0 i1 1 0.5 t", "line 1: there is no user 'u77' in the test split"),
        ("u0 Q0 i1 1 0.5 t\nu0 Q0 j1 2 0.4 t", "line 2: there is no item 'j1' in tiny"),
        ("u0 Q0 i1 1 0.5 t\nu0 Q0 i1 2 0.4 t", "user 'u0' has an item twice"),
    ],
)
def test_what_is_no_trec_run_is_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "run.trec"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        import_trec(path, sources()[0], "test", ITEMS)


def test_a_trec_run_is_ordered_by_score_and_tells_the_history(tmp_path):
    path, first = tmp_path / "run.trec", sources()[0]
    again = first.split("test").histories[5][0]
    path.write_text(f"u1 Q0 i8 1 0.5 t\n\nu1 Q0 i9 2 0.75 t\nu5 Q0 {again} 1 1e-3 t\n")
    found = import_trec(path, first, "test", ITEMS)
    assert found.split("test").candidates[:2] == [[], ["i9", "i8"]]
    assert found.manifest.history == "keep"


def test_a_token_with_a_space_and_a_file_in_the_way_are_refused(tmp_path):
    rows = tiny_batch().rows([0])
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match="there is there already"):
        export_trec(tmp_path / "there", rows, "t")
    with pytest.raises(UserError, match="no place for spaces"):
        export_trec(tmp_path / "new", replace(rows, users=["u 0"]), "t")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
