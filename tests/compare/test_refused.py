"""What a comparison refuses before anything runs, and whose settings are the stronger ones."""

from __future__ import annotations

import shutil

import pytest

from recbole_ext.compare.check import check_wanted, configs_of
from recbole_ext.compare.plan import plan
from recbole_ext.types import UserError
from tests.compare.conftest import SMALL, tiny, write_overrides
from tests.models.feature_help import item_feature


@pytest.fixture
def planned(tiny_data_path, tmp_path):
    """Plans DuoRec and FTRagRec (or other models) with a file of overrides and a command line."""

    def planned(more, *arguments, models=("DuoRec", "FTRagRec"), seeds=(2020,), **options):
        path = write_overrides(tmp_path / "all.yaml", {**tiny(tiny_data_path), **more})
        place = tmp_path / "compare"
        return {
            (one.name, one.seed): one
            for one in plan(models, ["tiny"], seeds, place, path, arguments, **options)
        }

    return planned


def variant(**settings):
    return {"variants": {"own": {"model": "FTRagRec", **settings}}}


def test_who_does_not_start_from_the_run_of_the_comparison_is_left_alone(planned, tmp_path):
    for settings in ({"pretrain": "none", "freeze": "none"}, {"pretrained_path": str(tmp_path)}):
        runs = planned(variant(**settings))
        own, plain = runs["own", 2020], runs["FTRagRec", 2020]
        assert plain.needs == (runs["DuoRec", 2020].folder,)
        assert plain.settings["pretrained_path"] == str(plain.needs[0])
        assert own.needs == ()
        assert own.settings.get("pretrained_path") == settings.get("pretrained_path")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_size": 32}, "hidden_size on tiny is 64 for DuoRec and 32 for own, which starts"),
        ({"n_heads": 1}, "n_heads on tiny is 2 for DuoRec and 1 for own"),
        ({"MAX_ITEM_LIST_LENGTH": 5}, "MAX_ITEM_LIST_LENGTH on tiny is 10 for DuoRec and 5 for"),
        ({"pretrain_epochs": 1}, "pretrain_epochs: own starts from the DuoRec of this comparison"),
    ],
)
def test_an_encoder_that_would_not_fit_is_refused_where_it_is_taken_over(
    settings, sentence, planned
):
    with pytest.raises(UserError, match=sentence):
        planned(variant(**settings))
    assert planned(variant(pretrain="none", freeze="none", **settings))


def test_controls_of_a_model_that_starts_elsewhere_are_refused(planned):
    cold = {"models": {"FTRagRec": {"pretrain": "none", "freeze": "none"}}}
    assert planned(cold)
    with pytest.raises(UserError, match="--controls are of FTRagRec against the DuoRec .*elsewh"):
        planned(cold, controls=True)


def test_callbacks_are_checked_before_anything_runs(planned):
    broken = {"models": {"FTRagRec": {"callbacks": [{"EarlyStop": {"monitor": "ndcg@10"}}]}}}
    with pytest.raises(UserError, match="FTRagRec: EarlyStop has no argument 'monitor'"):
        planned(broken)


@pytest.mark.parametrize("key", ["text_feature", "image_feature", "user_feature", "item_init"])
def test_a_feature_that_is_not_there_is_refused_before_anything_runs(key, planned, tmp_path):
    """Not by one run after the other."""
    feature = item_feature(tmp_path / "tiny", "title")
    model = "JointRec" if "feature" in key else "DuoRec"
    own = {"features_dir": str(tmp_path)}
    for name in ("title", feature):
        given = {key: {"feature": name} if key == "item_init" else name}
        assert planned({"models": {model: {**own, **given}}}, models=(model,))
    given = {key: {"feature": "titel"} if key == "item_init" else "titel"}
    with pytest.raises(UserError, match=f"{model}: there is no feature 'titel'.* mean 'title'"):
        planned({"models": {model: {**own, **given}}}, models=(model,))
    assert not (tmp_path / "compare").exists()


def test_a_callback_that_would_stop_what_goes_on_is_refused(planned):
    stopped = {"models": {"DuoRec": {"callbacks": [{"EarlyStop": {"metric": "ndcg@10"}}]}}}
    assert planned(stopped)
    with pytest.raises(UserError, match="EarlyStop would stop it again; set stopping_step"):
        planned(stopped, controls=True)


def test_several_seeds_of_a_random_split_are_refused(planned):
    """Each seed is tested on a split of its own, and the report could not be made."""
    random = {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO"}}
    assert planned(random, models=["BPR"])
    with pytest.raises(UserError, match="order: RO draws another split with each seed"):
        planned(random, models=["BPR"], seeds=(2020, 2021))
    in_time = {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO"}}
    assert planned(in_time, models=["BPR"], seeds=(2020, 2021))


def test_the_runs_on_one_dataset_read_the_same_files(planned, tiny_data_path, tmp_path):
    shutil.copytree(tiny_data_path, tmp_path / "copy")
    other = {"data_path": str(tmp_path / "copy")}
    assert planned({"datasets": {"tiny": other}})
    with pytest.raises(UserError, match="data_path on tiny is .* for DuoRec and .*copy for FTRag"):
        planned({"models": {"FTRagRec": other}})


def test_several_processes_are_refused(planned):
    with pytest.raises(UserError, match="nproc: 2: .*; leave nproc out"):
        planned({}, "--nproc=2")


def test_accelerate_is_true_or_false_and_the_command_line_is_the_stronger(planned):
    def accelerated(more, *arguments):
        runs = planned(more, *arguments, models=("Pop", "SASRec"))
        return [one.settings["accelerate"] for one in runs.values()]

    for parts in ({"models": {"SASRec": {"accelerate": True}}}, {"accelerate": True}):
        assert accelerated(parts) == [False, True]
        assert accelerated(parts, "--accelerate=False") == [False, False]
    in_dataset = {"datasets": {"tiny": {"accelerate": False}}}
    assert accelerated(in_dataset) == [False, False]
    assert accelerated(in_dataset, "--accelerate=True") == [False, True]
    assert accelerated({"datasets": {"tiny": {"accelerate": True}}}) == [False, True]
    for more, arguments in (({}, ["--accelerate=maybe"]), ({"accelerate": "maybe"}, [])):
        with pytest.raises(UserError, match="accelerate takes True or False, not 'maybe'"):
            accelerated(more, *arguments)


@pytest.mark.parametrize(
    ("more", "arguments"),
    [
        ({"models": {"DuoRec": SMALL, "FTRagRec": {**SMALL, "mix": "gate"}}}, []),
        ({}, ["--mix=gate", "--alpha=0.3", "--allow_keys=[mix,alpha]"]),
    ],
    ids=["file", "command line"],
)
def test_controls_stay_what_they_are_whatever_is_set_for_the_model(
    more, arguments, planned, tmp_path
):
    wanted = []

    def read(dataset, runs):
        wanted.extend(runs)
        return "data"

    runs = planned(more, *arguments, controls=True, fingerprint_of=read)
    check_wanted(configs_of("tiny", wanted), 40)
    configs = configs_of("tiny", wanted)
    assert configs["FTRagRec"]["mix"] == "gate"
    alone = configs["FTRagRec (alpha 0)"]
    assert (alone["mix"], alone["alpha"], alone["calibrate"]) == ("log_linear", 0.0, "none")
    fixed = runs["FTRagRec (random neighbours, weight fixed)", 2020]
    assert fixed.needs == tuple(runs[n, 2020].folder for n in ("DuoRec", "FTRagRec"))
    assert not [text for text in fixed.overrides if text.startswith("--alpha=")]


def test_the_digest_of_a_name_is_that_of_its_settings_whatever_the_seed(planned):
    runs = planned({}, seeds=(1, 2))
    for name in ("DuoRec", "FTRagRec"):
        assert runs[name, 1].digest == runs[name, 2].digest
        assert runs[name, 1].folder != runs[name, 2].folder
    others = planned({"models": {"DuoRec": {"learning_rate": 0.01}}}, seeds=(1,))
    for name in ("DuoRec", "FTRagRec"):  # it starts from another
        assert others[name, 1].digest != runs[name, 1].digest
