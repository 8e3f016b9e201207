"""FTRagRec's settings that cannot be meant are refused in one sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from recbole_ext.registry import get_model
from recbole_ext.types import UserError
from tests.models.ftragrec_help import OfFTRagRec


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"top_k": 229},
            "top_k: 229 neighbours cannot come from a memory of 228 rows; give 1 to 228",
        ),
        ({"top_k": 0}, "top_k: 0 neighbours"),
        ({"alpha": 1.0, "mix": "probability"}, "alpha: 1.0 is not between 0 and 0.99"),
        ({"alpha": 101.0}, "alpha: 101.0 is not between 0 and 100"),
        ({"alpha": 0.3, "train_alpha": 0.0}, "train_alpha: 0 leaves .* or train_alpha above 0"),
        ({"smoothing": 0.0}, "smoothing: 0.0 is not between 1e-06 and 1000"),
        ({"calibrate_smoothing": [0.1, -1.0]}, "calibrate_smoothing: .* is not between"),
        ({"mix": "gate", "alpha": 0.0}, "mix: gate .* alpha must be above 0"),
        ({"mix": "gate", "train_alpha": 0.0}, "mix: gate .* train_alpha must be above 0"),
        ({"mix": "gate", "alpha": 0.5, "train_alpha": 0.1}, "gate has one alpha, .* give alpha or"),
        ({"alpha": 0.0}, "alpha: 0 leaves the retriever nothing to learn.*calibrate: none"),
        (
            {"mix": "vectors"},
            "mix: 'vectors' is none of log_linear, probability, vector, gate; did you mean",
        ),
        ({"exclude": "row"}, "exclude: 'row' is none of user, row_and_later"),
        ({"retriever_temperature": 0.0}, "retriever_temperature: 0.0 is not between 0.01 and 5"),
        ({"calibrate_alpha": [0.5, 101.5]}, "calibrate_alpha: .* is not between"),
        ({"calibrate_alpha": [0.5, 1.5], "mix": "gate"}, "calibrate_alpha: .* is not between"),
        ({"calibrate_top_k": []}, "calibrate_top_k: the list is empty"),
        ({"index": "flat"}, "index: 'flat' is none of"),
        ({"quality_percentile": 100.0}, "quality_percentile: 100.0 is not between 0 and 99"),
        ({"calibrate_top_k": [2.5]}, "calibrate_top_k: .* whole numbers"),
        ({"pretrain": "never"}, "pretrain: 'never' is none of auto, none"),
        ({"retriever_inner_size": 0}, "retriever_inner_size: 0 is not between 1"),
        ({"memory_limit_mib": -1}, "memory_limit_mib: -1 is not between 0"),
        ({"n_probe": -3}, "n_probe: -3 is not between 16"),
        ({"freeze": []}, "freeze: \\[\\] .*all, none or names"),
        ({"freeze": [3]}, "freeze: \\[3\\] .*all, none or names"),
        ({"initializer_range": -1.0}, "initializer_range: -1.0 must be greater than 0"),
        ({"attn_dropout_prob": 1.5}, "attn_dropout_prob: 1.5 is not in \\[0, 1\\)"),
        ({"pretrained_path": "nowhere.pt"}, "pretrained_path: nowhere.pt does not exist"),
    ],
)
def test_wrong_settings_are_one_sentence(make, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        make(**settings)


@pytest.fixture
def check(tiny_data_path, tmp_path):
    """Check a run's settings as the runner does: ``check(key=value)``."""

    def checked(**settings: Any) -> None:
        config = OfFTRagRec().make_config(tiny_data_path, tmp_path, **settings)
        net_class = get_model("FTRagRec")
        net_class.check_settings(config, SimpleNamespace(inter_feat=range(228)))

    return checked


REFRESH = {"FaissRefresh": {"before_valid": False}}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"callbacks": ["Progress"]},
            "lacks FaissRefresh.*'- FaissRefresh: {before_valid: False}'",
        ),
        ({"callbacks": ["Calibrate"]}, "callbacks: .* lacks FaissRefresh"),
        ({"callbacks": None}, "callbacks: .* lacks FaissRefresh"),
        ({"callbacks": [REFRESH]}, "lacks Calibrate.*'- Calibrate' to it, or set calibrate: none"),
        ({"callbacks": ["Progress"], "calibrate": "none"}, "callbacks: .* lacks FaissRefresh"),
        ({"pretrain": "none"}, "pretrain: none .* freeze: all .*give pretrained_path"),
        ({"pretrain": "none", "freeze": ["all"]}, "pretrain: none without pretrained_path"),
        ({"pretrain": "none", "freeze": "encoder.*"}, "pretrain: none without pretrained_path"),
        ({"pretrain": "none", "freeze": ["*.item_embedding.*"]}, "pretrain: none without"),
        ({"mix": "vectors"}, "mix: 'vectors' is none of"),
        ({"memory_dir": "nowhere"}, "memory_dir: there is no folder 'nowhere'; create it or"),
    ],
)
def test_a_run_that_lacks_what_it_needs_is_refused(check, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        check(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"callbacks": ["FaissRefresh", "Calibrate", "Progress"]},
        {"callbacks": [REFRESH, "recbole_ext.callbacks.calibrate:Calibrate"]},
        {"callbacks": [REFRESH], "calibrate": "none"},
        {"pretrain": "none", "pretrained_path": "somewhere"},
        {"pretrain": "none", "freeze": "none"},
        {"pretrain": "none", "freeze": ["retrieval.*"]},
    ],
)
def test_a_run_that_has_it_is_not(check, settings):
    check(**settings)
