"""JointRec's plans in ``properties``: what each phase and strategy does, and their resume."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from recbole_ext.compare.ablation import ablation_of
from recbole_ext.compare.overrides import Overrides
from recbole_ext.quick_start import run
from recbole_ext.types import UserError
from tests.models.feature_help import item_feature
from tests.models.phase_help import (
    broken_off,
    check_same_end,
    ends_of,
    moves,
    properties,
    shortened,
)

SMALL = {"hidden_size": 8, "inner_size": 16, "joint_negatives": 7, "memory_bank_size": 16}
OF_PROXIES = {
    "retriever": "UR4Rec",
    "retriever_config": {"n_proxies": 3, "retriever_size": 16, "retriever_inner_size": 32},
}
PLANS = ("JointRec", "JointRec-multimodal")
PHASES = ("pretrain_sasrec", "pretrain_retriever", "joint_finetune", "end_to_end")


@pytest.fixture
def settings(tiny_settings, tmp_path):
    """Small settings, with texts and images of the items; the callbacks are to be given."""
    features = {
        "text_feature": item_feature(tmp_path, "title"),
        "image_feature": item_feature(tmp_path, "poster", size=10, missing=(5, 17)),
    }
    more = {"epochs": 99, "topk": [5], "valid_metric": "NDCG@5"}
    return {**tiny_settings, **SMALL, **features, **more}


def all_strategies() -> dict[str, Any]:
    """Return the settings of the ablation with all of its switches on."""
    found = ablation_of("JointRec", Overrides({}))
    (every,) = [one.settings for one in found.variants if one.name == "+ all"]
    return {**found.by_model["JointRec"], **every}


# ---- the files


@pytest.mark.parametrize("plan", PLANS)
def test_the_phases_have_the_documented_lengths(plan):
    """SASRec 5 to 10 epochs, the retriever 10 to 15, both 15 to 20, end to end 10 to 15."""
    found = properties("JointRec")
    ends = ends_of(properties(plan)["callbacks"])
    assert ends[-1] == found["epochs"]
    ends = [ends[0], *ends[-3:]]  # the retriever's may be several phases
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    bounds = ((5, 10), (10, 15), (15, 20), (10, 15))
    for length, (low, high) in zip(lengths, bounds, strict=True):
        assert low <= length <= high
    assert found["stopping_step"] > max(lengths), "early stopping would cut a phase off"


def test_the_model_is_its_ablation_but_for_the_uncertainties():
    """The two files say one thing."""
    found, every = properties("JointRec"), all_strategies()
    assert list(every["callbacks"].pop()) == ["UncertaintyWeights"]

    def by_name(callbacks: list[Any]) -> dict[str, Any]:
        return {name: given for callback in callbacks for name, given in callback.items()}

    assert by_name(every.pop("callbacks")) == by_name(found["callbacks"])
    assert every == {key: found[key] for key in every}


def test_the_plain_plan_is_the_base_of_the_ablation():
    assert (
        properties("JointRec-plain") == ablation_of("JointRec", Overrides({})).by_model["JointRec"]
    )


def test_the_plan_for_images_is_the_one_for_texts_with_other_phases():
    one, other = (properties(plan)["callbacks"] for plan in PLANS)
    keep = ("AdaptiveAlternate", "Distill", "Freeze")
    for mine, theirs in zip(one, other, strict=True):
        assert list(mine) == list(theirs)
        assert mine == theirs or not mine.keys() & set(keep)
    first, last = (plan[0]["Alternate"]["phases"] for plan in (one, other))
    assert [p for p in last if p in first] == [p for p in first if p["name"] != PHASES[1]]


def test_the_curriculum_ends_with_the_retrievers_phase():
    """Consistency by 30 %, contrast by 60 %, diversity by 100 %; the weights are the document's."""
    found = properties("JointRec")
    weights = [found[f"{name}_weight"] for name in ("consistency", "contrastive", "diversity")]
    assert weights == [0.1, 0.2, 0.05]
    for plan, phase in zip(PLANS, ("pretrain_retriever", "joint_multimodal"), strict=True):
        callbacks = properties(plan)["callbacks"]
        names = [p["name"] for p in callbacks[0]["Alternate"]["phases"]]
        at = names.index(phase)
        start, end = ends_of(callbacks)[at - 1], ends_of(callbacks)[at]
        (schedules,) = [c["LossCurriculum"]["weights"] for c in callbacks if "LossCurriculum" in c]
        for name, share in (("consistency", 0.3), ("contrastive", 0.6), ("diversity", 1.0)):
            assert schedules[name]["start"] == 0 and schedules[name]["end"] == 1
            assert abs(schedules[name]["until"] - (start + share * (end - start))) < 1
        assert schedules["consistency"]["begin"] == start, "retrieval alone at first"


# ---- the phases


def parts_of(names: set[str]) -> set[str]:
    """Return the parts that some parameters are of; SASRec's items are one."""
    special = {"sasrec.item_embedding.weight": "items"}
    return {special.get(name, name.split(".")[0]) for name in names}


def test_each_phase_moves_its_own_part(settings, monkeypatch, tmp_path):
    """The plan of JointRec.yaml, in 4 epochs a phase."""
    plan = shortened(properties("JointRec")["callbacks"], 4)
    settings = {**settings, "callbacks": plan, "output_dir": str(tmp_path / "run")}
    found = [
        (phase, epoch, parts_of(names))
        for phase, epoch, names in moves("JointRec", settings, monkeypatch)
    ]
    by_phase = {phase: [parts for one, _, parts in found if one == phase] for phase in PHASES}
    assert list(dict.fromkeys(phase for phase, _, _ in found)) == list(PHASES)
    assert all(parts == {"sasrec", "items"} for parts in by_phase["pretrain_sasrec"])
    assert all(parts == {"retriever"} for parts in by_phase["pretrain_retriever"])
    joint = by_phase["joint_finetune"]
    assert {"mix", "sasrec", "items"} in joint and {"mix", "retriever"} in joint, "in turns"
    assert not any({"sasrec", "retriever"} <= parts for parts in joint)
    thawed = {epoch: parts for phase, epoch, parts in found if phase == "end_to_end"}
    every = {"mix", "sasrec", "retriever"}
    assert thawed == {12: {"mix"}, 13: every, 14: every | {"items"}, 15: every | {"items"}}


def test_texts_then_images_then_both(settings, monkeypatch, tmp_path):
    """The plan of JointRec-multimodal.yaml."""
    plan = properties("JointRec-multimodal")
    settings = {**settings, **plan, "callbacks": shortened(plan["callbacks"], 1)}
    settings["output_dir"] = str(tmp_path / "run")
    by_phase: dict[str, set[str]] = {}
    for phase, _, names in moves("JointRec", settings, monkeypatch):
        by_phase.setdefault(phase, set()).update(names)
    maps = {kind: f"retriever.content.projections.{kind}.weight" for kind in ("text", "image")}
    for phase, mine, other in (
        ("pretrain_text", "text", "image"),
        ("pretrain_image", "image", "text"),
    ):
        assert maps[mine] in by_phase[phase] and maps[other] not in by_phase[phase]
        parts = {name.split(".")[1] for name in by_phase[phase]}
        assert parts == {"content", "user_profile", "score"}
        assert not any("fusion" in name or "delta" in name for name in by_phase[phase])
    both = by_phase["joint_multimodal"]
    assert {*maps.values(), "retriever.content.delta.weight"} <= both
    assert any("fusion" in name for name in both)
    assert parts_of(both) == {"retriever"}


@pytest.mark.parametrize("lacks", ["text_feature", "image_feature"])
def test_the_plan_of_both_names_the_feature_that_lacks(lacks, settings):
    settings = {**settings, **properties("JointRec-multimodal"), lacks: None}
    with pytest.raises(UserError, match="name text_feature and image_feature"):
        run("JointRec", "tiny", config_dict=settings)


def test_what_the_strategies_weigh(settings, tmp_path):
    """Of each phase the losses that count, as they stand in the run's record."""
    found = properties("JointRec-multimodal")
    settings = {**settings, **found, "callbacks": shortened(found["callbacks"], 3)}
    run("JointRec", "tiny", config_dict={**settings, "output_dir": str(tmp_path / "run")})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    counted = [{n for n, loss in json.loads(line)["losses"].items() if loss} for line in lines]
    own = ["retrieval", "consistency", "contrastive", "diversity"]
    both = {"sasrec", "joint", *own, "distill_retriever", "distill_sasrec"}
    alone = [{"sasrec"}] * 3 + [{"retrieval"}] * 6
    curriculum = [set(own[: 1 + n]) for n in range(3)]
    assert counted == [*alone, *curriculum, *[both] * 3, *[{"joint"}] * 3]


# ---- resume


@pytest.mark.parametrize(
    ("kind", "epochs"),
    [("text", (1, 3, 5, 6)), ("proxies", (5,)), ("multimodal", (5, 9))],
    ids=str,
)
def test_a_run_that_was_broken_off_ends_as_the_whole_one(
    kind, epochs, settings, tmp_path, monkeypatch
):
    """In each phase, with all strategies at once: to the bit."""
    given = copy.deepcopy(all_strategies())
    if kind == "multimodal":
        of_images = properties("JointRec-multimodal")
        given = {**given, **of_images}
        given["callbacks"] = [*of_images["callbacks"], all_strategies()["callbacks"][-1]]
    elif kind == "proxies":
        given.update(OF_PROXIES)
    given.update(memory_bank_size=16, callbacks=shortened(given["callbacks"], 2))
    settings = {**settings, **given}
    whole = tmp_path / "whole"
    run("JointRec", "tiny", config_dict={**settings, "output_dir": str(whole)})
    for epoch in epochs:
        folder = tmp_path / f"broken in {epoch}"
        broken_off("JointRec", settings, epoch, folder, monkeypatch)
        check_same_end(whole, folder)
        records = [(one / "metrics.jsonl").read_text().splitlines() for one in (whole, folder)]
        assert len(records[0]) == len(records[1]) == ends_of(given["callbacks"])[-1]


# ---- the ablation


def test_the_ablation_has_what_the_model_has(settings, tmp_path):
    """A loss or a part that is not there ends a run with a sentence."""
    found = ablation_of("JointRec", Overrides({}))
    names = [one.name for one in found.variants]
    assert names == [
        *("+ alternation", "+ curriculum", "+ bank", "+ distillation", "+ unfreezing"),
        *("+ uncertainty", "+ all"),
    ]
    base = found.by_model["JointRec"]
    phases = base["callbacks"][0]["Alternate"]["phases"]
    assert [phase["name"] for phase in phases] == list(PHASES)
    for name, one in [("base", {}), *((one.name, one.settings) for one in found.variants)]:
        given, folder = {**settings, **base, **one}, tmp_path / name
        if given["memory_bank_size"]:
            given["memory_bank_size"] = 16
        callbacks = shortened(given["callbacks"], 1)
        run(
            "JointRec",
            "tiny",
            config_dict={**given, "callbacks": callbacks, "output_dir": str(folder)},
        )
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3], name
