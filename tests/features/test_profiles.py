"""Prompts up to a cut-off, templates, and what is let in without one."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from recbole_ext.features import profiles
from recbole_ext.features.manifest import MAY_LEAK
from recbole_ext.features.profiles import (
    default_line,
    description_prompts,
    import_texts,
    own_cutoffs,
    profile_prompts,
    read_template,
)
from recbole_ext.types import UserError

ITEMS = {
    "i1": {"title": "Alien", "genre": "Horror", "year": "1979"},
    "i2": {"title": "Brazil {1985}", "genre": "", "year": ""},
    "i3": {"title": "", "genre": "", "year": ""},
    "i4": {"title": "Dune", "genre": "Science Fiction", "year": "1984"},
}
HISTORIES = {
    "u1": [("i4", 3.0), ("i1", 1.0), ("i2", 2.0)],
    "u2": [("i3", 1.0), ("i9", 1.0), ("i1", 9.0)],
    "u3": [],
}
PLAIN = {"template": "{history}", "line": "{title}"}


def told(prompts) -> dict[str, list[str] | None]:
    return {
        u: p and [line.removeprefix("- ") for line in p.split("\n")] for u, p in prompts.items()
    }


def test_a_profile_has_what_is_at_or_before_the_cut_off_and_nothing_else():
    prompts, cutoffs = profile_prompts(HISTORIES, ITEMS, 2.0, **PLAIN)
    assert told(prompts) == {"u1": ["Alien", "Brazil {1985}"], "u2": None, "u3": None}
    assert cutoffs == {"u1": 2.0, "u2": 2.0}
    assert told(profile_prompts(HISTORIES, ITEMS, 1.999, **PLAIN)[0])["u1"] == ["Alien"]
    assert told(profile_prompts(HISTORIES, ITEMS, 0, **PLAIN)[0])["u1"] is None


def test_each_user_may_have_a_cut_off():
    prompts, cutoffs = profile_prompts(HISTORIES, ITEMS, {"u1": 1.5, "u2": 9}, **PLAIN)
    assert told(prompts) == {"u1": ["Alien"], "u2": ["Alien"], "u3": None}
    assert cutoffs == {"u1": 1.5, "u2": 9.0}


def test_the_latest_events_are_told_in_their_order():
    prompts, _ = profile_prompts(HISTORIES, ITEMS, 3.0, max_items=2, **PLAIN)
    assert told(prompts)["u1"] == ["Brazil {1985}", "Dune"]
    same = {"u": [("i4", 1.0), ("i1", 1.0), ("i2", 1.0)]}
    assert told(profile_prompts(same, ITEMS, 1.0, **PLAIN)[0])["u"] == [
        "Dune",
        "Alien",
        "Brazil {1985}",
    ]


def test_the_default_template_shows_titles_and_categories():
    prompts, _ = profile_prompts(HISTORIES, ITEMS, 3.0)
    assert "- Alien (Horror)\n- Brazil {1985} ()\n- Dune (Science Fiction)\n" in prompts["u1"]
    assert default_line({"1": {"movie_title": "", "class": ""}}) == "{movie_title} ({class})"
    with pytest.raises(UserError, match="no field .* called a title .*line='{year}' .*are year, p"):
        default_line({"1": {"year": "", "price": ""}})


def test_an_item_is_described_from_its_fields():
    prompts = description_prompts(ITEMS)
    assert "title: Alien\ngenre: Horror\nyear: 1979\n\n" in prompts["i1"]
    assert "title: Brazil {1985}\n\n" in prompts["i2"] and prompts["i3"] is None
    prompts = description_prompts(ITEMS, template="{year}, {{braces}}")
    assert prompts == {"i1": "1979, {braces}", "i2": None, "i3": None, "i4": "1984, {braces}"}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: profile_prompts(HISTORIES, ITEMS, 1, template="{histroy}"), "'histroy'; did you"),
        (lambda: profile_prompts(HISTORIES, ITEMS, 1, template="none"), "profiles has no field; w"),
        (lambda: profile_prompts(HISTORIES, ITEMS, 1, template="{"), "profiles: .* a brace {{"),
        (lambda: profile_prompts(HISTORIES, ITEMS, 1, line="{titel}"), "no field 'titel'; did you"),
        (lambda: profile_prompts(HISTORIES, ITEMS, 1, max_items=0), "max_items is 0; a profile is"),
        (lambda: profile_prompts(HISTORIES, ITEMS, {"u1": 1}), "cut-off of 'u2' is None; a time"),
        (lambda: profile_prompts(HISTORIES, ITEMS, float("inf")), "cut-off of 'u1' is inf; a time"),
        (lambda: description_prompts(ITEMS, template="{yaer}"), "'yaer'; did you mean 'year'"),
        (lambda: description_prompts(ITEMS, template="{title.__class__}"), "title.__class__"),
        (lambda: read_template("/no/such"), "cannot read the template /no/such"),
        (lambda: own_cutoffs(HISTORIES, 0), "share of a history is above 0 and at most 1, not 0"),
    ],
)
def test_what_makes_no_prompt_is_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_a_template_may_be_a_file(tmp_path):
    (tmp_path / "t.txt").write_text("Über {history}", encoding="utf-8")
    assert read_template(tmp_path / "t.txt") == "Über {history}"


def test_own_cut_offs_are_the_time_that_ends_a_share_of_the_history():
    histories = {"u": [("a", 5.0), ("b", 1.0), ("c", 3.0), ("d", 4.0)], "none": []}
    found = {share: own_cutoffs(histories, share) for share in (1, 0.75, 0.5, 0.51, 0.01)}
    assert found == {1: {"u": 5}, 0.75: {"u": 4}, 0.5: {"u": 3}, 0.51: {"u": 4}, 0.01: {"u": 1}}


def write(path, kind):
    rows = [
        {"user": "1", "text": "likes", "cutoff": 5.5},
        {"user": "2", "text": "", "cutoff": None},
    ]
    without = [{"user": row["user"], "text": row["text"]} for row in rows]
    if kind == "json":
        path.write_text(json.dumps({"1": "likes", "2": ""}))
    elif kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif kind == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "empty":
        pd.DataFrame([{**row, "cutoff": None} for row in rows]).to_csv(path, index=False)
    else:
        pd.DataFrame(without).to_csv(path, sep="\t", index=False)


@pytest.mark.parametrize("name", ["a.json", "a.tsv", "a.empty"])
def test_texts_without_a_cut_off_are_refused_unless_somebody_answers_for_it(name, tmp_path, caplog):
    path = tmp_path / name.replace("empty", "csv")
    write(path, name[2:])
    with pytest.raises(
        UserError, match="does not tell up to which time .* give --cutoff=.*may_leak"
    ):
        import_texts(path)
    texts = import_texts(path, cutoff=7)
    assert texts.texts == {"1": "likes", "2": None}
    assert texts.cutoffs == {"1": 7.0, "2": 7.0} and texts.cutoff == 7 and texts.notes == ()
    assert not caplog.text
    texts = import_texts(path, may_leak=True)
    assert texts.cutoffs is None and texts.cutoff is None and texts.notes == (MAY_LEAK,)
    assert "may leak" in caplog.text and str(path) in caplog.text
    with pytest.raises(UserError, match="the cut-off is inf"):
        import_texts(path, cutoff=float("inf"))


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_file_may_have_a_cut_off_for_each_row(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    write(path, kind)
    texts = import_texts(path)
    assert texts.texts == {"1": "likes", "2": None}
    assert texts.cutoffs == {"1": 5.5} and texts.notes == ()
    with pytest.raises(UserError, match="has a cut-off for each row already; leave cutoff out"):
        import_texts(path, cutoff=7)


def test_a_row_that_lacks_its_cut_off_is_named(tmp_path):
    rows = [{"user": "1", "text": "likes", "cutoff": "x"}, {"user": "2", "text": "a", "cutoff": ""}]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match="the cut-off of '1' is 'x'; a time is meant"):
        import_texts(tmp_path / "a.csv")
    pd.DataFrame([{**rows[0], "cutoff": 1}, rows[1]]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match="the cut-off of '2' is None; a time is meant"):
        import_texts(tmp_path / "a.csv")


def test_the_default_prompts_do_not_ask_for_the_answer():
    assert "do not guess what comes next" in profiles.PROFILE
