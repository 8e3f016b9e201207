"""What FTRagRec's result says of its retrieval."""

from __future__ import annotations

import warnings

import pytest

from recbole_ext.paths import data_folder
from tests.models.ftragrec_help import train


def test_the_originals_values_load_as_a_user_file(make):
    path = data_folder("properties") / "model" / "FTRagRec-original.yaml"
    net, loaders = make(files=(path,))
    mix = net.retrieval
    assert (mix.mix, mix.top_k, mix.kl.target, mix.quality.threshold) == ("vector", 5, "model", 0.6)
    assert mix.settings() == {
        "alpha": pytest.approx(0.15),
        "top_k": 5,
        "temperature": pytest.approx(0.07),
    }
    assert (mix.kl.weight, net.enhanced_rec_weight, net.refresh_interval) == (0.03, 0.5, 10)
    assert not net.use_calibration and net.is_frozen
    train(net, loaders[0])


def test_result_says_what_was_used(make):
    net, loaders = make(top_k=8)
    net.calibrate(loaders[1])
    report = net.result_extra()["retrieval"]
    assert report["rows"] == 228 and report["index"] == "brute_force"
    assert report["mix"] == "log_linear" and report["is_calibrated"] is True
    assert report["memory_include_valid"] is False and report["alpha"] >= 0


def test_a_gate_does_not_report_the_alpha_that_it_replaces(make):
    net, loaders = make(mix="gate", top_k=8)
    for report in (net.calibrate(loaders[1]), net.result_extra()["retrieval"]):
        assert "alpha" not in report
        assert report["initial_alpha"] == pytest.approx(0.35)


def test_asking_for_the_settings_of_a_learned_temperature_warns_of_nothing(make):
    net, loaders = make(top_k=8, learn_temperature=True)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        net.calibrate(loaders[1])
        net.retrieval.settings()
        net.result_extra()
    assert [str(one.message) for one in warned] == []
