"""A model with each switch alone and with all of them."""

from __future__ import annotations

import pytest
import yaml

from recbole_ext.cli import main
from recbole_ext.compare import runner
from recbole_ext.compare.ablation import ablation_of, joined
from recbole_ext.compare.overrides import Overrides
from recbole_ext.types import UserError
from tests.compare.conftest import in_process, tiny, write_overrides

FILE = {
    "base": {"embedding_size": 8, "callbacks": ["Progress"]},
    "switches": {
        "wide": {"embedding_size": 16},
        "slow": {"callbacks": [{"LrSchedule": {"kind": "cosine"}}], "learning_rate": 0.002},
    },
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "switches.yaml"
    path.write_text(yaml.safe_dump(FILE))
    return path


def test_each_alone_and_all(file):
    given = Overrides({"epochs": 1}, {"BPR": {"seedless": 1, "embedding_size": 4}})
    found = ablation_of("BPR", given, (), file)
    assert found.by_model["BPR"] == {"seedless": 1, **FILE["base"]}
    settings = {one.name: one.settings for one in found.variants}
    schedule = FILE["switches"]["slow"]["callbacks"]
    assert settings == {
        "+ wide": {"embedding_size": 16, "callbacks": ["Progress"]},
        "+ slow": {"learning_rate": 0.002, "callbacks": ["Progress", *schedule]},
        "+ all": {
            "embedding_size": 16,
            "learning_rate": 0.002,
            "callbacks": ["Progress", *schedule],
        },
    }
    assert all(one.control_of == one.model == "BPR" for one in found.variants)
    one = ablation_of("BPR", Overrides(), ["slow"], file)
    assert [variant.name for variant in one.variants] == ["+ slow"]


def test_switches_that_contradict_each_other():
    pairs = [("a", {"alpha": 1}), ("b", {"alpha": 1}), ("c", {"alpha": 2})]
    assert joined({}, pairs[:2], "f") == {"alpha": 1}
    with pytest.raises(UserError, match="f: switches 'b' and 'c' both set alpha"):
        joined({}, pairs, "f")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base: {}\n", "'base' holds settings, and 'switches' maps a name"),
        ("switches: {a: 1}\n", "'base' holds settings, and 'switches' maps a name"),
        ("switches: {a: {}}\nmore: 1\n", "are all that there may be, not more"),
    ],
)
def test_a_file_that_is_none(text, sentence, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        ablation_of("BPR", Overrides(), (), tmp_path / "x.yaml")


def test_what_cannot_be_meant(file):
    with pytest.raises(UserError, match="has no switch 'wdie'; did you mean 'wide'"):
        ablation_of("BPR", Overrides(), ["wdie"], file)
    with pytest.raises(UserError, match="there is no .*BPR.yaml; write one with 'base'"):
        ablation_of("BPR", Overrides())


def test_the_command(file, tiny_data_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "in_child", in_process)
    settings = {k: v for k, v in tiny(tiny_data_path).items() if k != "models"}
    overrides = write_overrides(tmp_path / "all.yaml", settings)
    place = tmp_path / "out"
    common = [f"--overrides={overrides}", f"--output_dir={place}", f"--switches_file={file}"]
    code = main(["ablate", "--model=BPR", "--dataset=tiny", "--seeds=1", *common])
    out = capsys.readouterr().out
    assert code == 0 and "Against BPR" in out
    for name in ("BPR", "+ wide", "+ slow", "+ all"):
        assert f"| {name}" in out
    assert main(["ablate", "--model=BRP", "--dataset=tiny", *common]) == 2
    assert "unknown model 'BRP'; did you mean 'BPR'" in capsys.readouterr().err
    assert main(["ablate", "--model=BPR", *common]) == 2
    assert "ablate needs" in capsys.readouterr().err
