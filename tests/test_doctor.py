"""`recbole-ext doctor`: it says what is there, and exits with 1 when something needed is not."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from compat_help import WITHOUT
from packaging.requirements import Requirement

from recbole_ext import compat, doctor


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the trials and most of the core out, for the tests of the rest."""
    monkeypatch.setattr(doctor, "TRIALS", {})
    few = {name: doctor.CORE[name] for name in ("recbole", "tqdm", "pyyaml")}
    monkeypatch.setattr(doctor, "CORE", few)


def test_a_sound_installation_is_reported_in_full_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, code = doctor.report()
    assert code == 0, text
    lines = text.splitlines()
    for name in ("torch", "numpy", "pandas", "scipy", "scikit-learn", "recbole", "faiss-cpu"):
        assert any(line.split() == [name, version(name)] for line in lines), name
    assert all(any(repair.title in line for line in lines) for repair in compat.REPAIRS)
    assert sum(line.startswith("  ok ") for line in lines) == len(doctor.TRIALS)
    assert list(tmp_path.iterdir()) == []


def versions(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> None:
    """Let some distributions have another version, or none."""
    real = doctor._version_of
    monkeypatch.setattr(doctor, "_version_of", lambda name: changed.get(name, real(name)))


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ((3, 11), "pip install recbole==1.2.1"),
        ((3, 12), "pip install --no-deps recbole==1.2.1"),
        ((3, 13), "pip install --no-deps recbole==1.2.1"),
    ],
)
def test_recbole_missing_or_another_version_is_a_problem_with_its_remedy(
    python: tuple[int, int], command: str, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", python)
    for found, sentence in ((None, "is not installed"), ("1.2.0", "recbole 1.2.0 is not 1.2.1")):
        versions(monkeypatch, recbole=found)
        text, code = doctor.report()
        assert code == 1 and sentence in text and command in text.splitlines()[-1]


def test_a_core_part_that_is_missing_is_a_problem(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, pyyaml=None)
    text, code = doctor.report()
    assert code == 1 and "pyyaml is not installed; install it with: pip install pyyaml" in text


def test_a_core_part_that_does_not_import_is_a_problem(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    text, code = doctor.report()
    assert code == 1 and f"pyyaml {version('pyyaml')} does not import" in text


@pytest.mark.parametrize("outcome", ["failed: AttributeError: gone", "unavailable: no such module"])
def test_a_repair_that_is_lost_is_a_problem(
    outcome: str, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = compat.REPAIRS[4]
    monkeypatch.setattr(compat, "settle", lambda: [(repair, outcome)])
    text, code = doctor.report()
    assert code == 1 and f"repair {repair.id} {outcome}" in text


@pytest.mark.parametrize("extra", list(doctor.EXTRAS))
def test_an_optional_part_that_is_missing_is_no_problem_and_names_its_extra(
    extra: str, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = doctor.EXTRAS[extra][0].split()
    versions(monkeypatch, **{name: None for name in names})
    text, code = doctor.report()
    assert code == 0
    (line,) = (line for line in text.splitlines() if f"'recbole-ext[{extra}]'" in line)
    assert all(name in line for name in names)


def test_the_extras_are_those_of_the_package() -> None:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    declared = {
        extra: " ".join(Requirement(line).name for line in text.split("\n") if line)
        for extra, text in setup["options.extras_require"].items()
        if extra not in ("test", "dev", "all")
    }
    assert declared == {extra: names for extra, (names, _) in doctor.EXTRAS.items()}


def fails(title: str) -> str:
    """Return what the report says of a trial, having asserted that it failed."""
    text, code = doctor.report()
    assert code == 1
    (line,) = (line for line in text.splitlines() if line.startswith(f"  failed  {title}"))
    return line


def test_the_trial_of_faiss_notices_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    class Broken:
        def __init__(self, size: int) -> None:
            """Take any size."""

        def add(self, vectors: Any) -> None:
            """Forget them."""

        def search(self, queries: Any, k: int) -> Any:
            import numpy as np

            return None, np.zeros((len(queries), k), dtype=int)

    monkeypatch.setattr(faiss, "IndexFlatIP", Broken)
    assert "[[0]]" in fails("faiss finds")


def test_the_trial_of_the_dataset_notices_values_that_stay_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recbole.data.dataset.dataset import Dataset

    def fill_lists_only(self: Any) -> None:
        rows = self.item_feat["tags"]
        self.item_feat["tags"] = [[] if isinstance(row, float) else row for row in rows]

    monkeypatch.setattr(Dataset, "_fill_nan", fill_lists_only)
    assert "nan" in fails("RecBole reads a dataset")


def test_the_trial_of_the_checkpoints_notices_a_load_that_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    original = getattr(torch.load, "_recbole_ext_original", torch.load)
    monkeypatch.setattr(torch, "load", original)
    assert "UnpicklingError" in fails("torch reads")


def test_without_torch_it_still_reports() -> None:
    hide = WITHOUT.format(name="torch").replace("\n    ", "\n")
    code = hide + "import runpy; runpy.run_module('recbole_ext.doctor', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"torch {version('torch')} does not import (ModuleNotFoundError" in done.stdout
