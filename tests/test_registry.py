"""From names to classes: each model is found, imported alone, and near names are offered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recbole.model.general_recommender.bpr import BPR
from recbole.trainer import KGTrainer, Trainer
from recbole.utils import ModelType

from recbole_ext import registry
from recbole_ext.config import Config
from recbole_ext.registry import builtin_models, extension_models, family_of, get_model
from recbole_ext.types import UserError


def test_recboles_models_are_found_by_their_names() -> None:
    models = builtin_models()
    assert {"BPR", "SASRec", "DeepFM", "KGCN", "XGBoost"} <= models.keys()
    assert len(models) > 90
    assert not {"GeneralRecommender", "SequentialRecommender"} & models.keys()
    assert get_model("BPR") is BPR


def test_our_models_are_found_by_their_files() -> None:
    models = extension_models()
    assert {"DuoRec", "FTRagRec", "LRURec", "BERT4RecCloze"} <= models.keys()
    for name, path in models.items():
        found = get_model(name)
        assert found.__name__ == name and family_of(found) == path.parent.name
    assert family_of(BPR) is None


def test_none_of_our_models_hides_one_of_recboles() -> None:
    """Ours are looked for first, so that an equal name would be RecBole's no more."""
    theirs = {name.lower() for name in builtin_models()}
    assert [name for name in extension_models() if name.lower() in theirs] == []
    assert get_model("BERT4Rec").__module__ == "recbole.model.sequential_recommender.bert4rec"


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("bpr", "'BPR'"),
        ("SASrec", "'SASRec'"),
        ("LigthGCN", "'LightGCN'"),
        ("Duo-Rec", "'DuoRec'"),
        ("ftragrec", "'FTRagRec'"),
    ],
)
def test_a_misspelt_model_is_answered_with_near_names(name: str, offered: str) -> None:
    with pytest.raises(UserError) as caught:
        get_model(name)
    sentence = str(caught.value)
    assert sentence.startswith(f"unknown model '{name}'; did you mean ") and offered in sentence


def test_a_name_near_to_nothing_is_answered_with_how_to_give_ones_own() -> None:
    with pytest.raises(UserError) as caught:
        get_model("Qqqqqq")
    assert "did you mean" not in str(caught.value)
    assert "--model=my_package.my_module:MyModel" in str(caught.value)


OUTSIDE = """
from recbole.model.general_recommender.bpr import BPR

class Mine(BPR):
    pass

class NoModel:
    pass

def function():
    pass
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_model.py").write_text(OUTSIDE, encoding="utf-8")
    (tmp_path / "broken_model.py").write_text("import a_package_that_is_not\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_outside_model_is_named_by_its_path(outside: None) -> None:
    found = get_model("outside_model:Mine")
    assert found.__name__ == "Mine" and issubclass(found, BPR)
    config = Config("outside_model:Mine", "ml-100k")
    assert config["model"] == "Mine" and config.resolved["model"] == "outside_model:Mine"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:Mine", "cannot import 'no_such_module'; is its folder on PYTHONPATH?"),
        ("broken_model:Mine", "cannot import 'a_package_that_is_not'"),
        ("outside_model:Nine", "module 'outside_model' has no class 'Nine'"),
        ("outside_model:NoModel", "'outside_model:NoModel' is no RecBole model"),
        ("outside_model:function", "'outside_model:function' is no RecBole model"),
        (":Mine", "':Mine'.* my_package.my_module:MyModel"),
        ("outside_model:", "'outside_model:'.* my_package.my_module:MyModel"),
        ("../outside:Mine", "'../outside:Mine'.* my_package.my_module:MyModel"),
    ],
)
def test_a_wrong_path_says_what_is_wrong(name: str, sentence: str, outside: None) -> None:
    with pytest.raises(UserError, match=sentence):
        get_model(name)


def test_a_class_may_be_given() -> None:
    mine = type("Mine", (BPR,), {})
    config = Config(mine, "ml-100k")
    assert config.model_class is mine and config["model"] == "Mine"
    with pytest.raises(UserError, match="is no RecBole model"):
        Config(dict, "ml-100k")


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in [m for m in sys.modules if m.startswith("recbole.model.exlib")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "xgboost", None)  # importing it raises ImportError
    with pytest.raises(UserError) as caught:
        get_model("XGBoost")
    assert "model XGBoost needs 'xgboost'" in str(caught.value)
    assert "pip install xgboost" in str(caught.value)


def test_a_model_is_imported_alone_and_leaves_anomaly_mode_off() -> None:
    """RecBole's packages import every model, and one of them turns anomaly mode on (U7)."""
    code = """
import sys, torch
import recbole_ext
from recbole_ext.registry import builtin_models, get_model
before = set(sys.modules)
assert not [m for m in before if m.startswith("recbole_ext.models.")]
builtin_models()
assert set(sys.modules) == before, "listing models imports none"
get_model("DuoRec")
get_model("SASRec")
ours = {m for m in sys.modules if m.startswith("recbole_ext.models.sequential.")}
assert ours == {"recbole_ext.models.sequential.duorec"}, ours
assert not torch.is_anomaly_enabled()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_trainer_is_found_by_name_and_else_by_type() -> None:
    assert registry.get_trainer(ModelType.SEQUENTIAL, "DuoRec") is Trainer
    assert registry.get_trainer(ModelType.KNOWLEDGE, "KGCN") is KGTrainer
    assert registry.get_trainer(ModelType.GENERAL, "NCL").__name__ == "NCLTrainer"
