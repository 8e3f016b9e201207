"""The source archive, the wheel made from it, and what pip is told to install."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from recbole_ext import paths

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DATA_FOLDERS = ("properties", "dataset_configs")
UNUSED_BY_RECBOLE = {"ray", "tabulate", "plotly"}
"""Declared by RecBole, and not imported on any way that we use (ray is replaced in ``compat``)."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    pytest.importorskip(
        "setuptools",
        minversion="77.0.3",
        reason="building needs setuptools>=77.0.3, an extra of [test]",
    )
    work = tmp_path_factory.mktemp("packaging")
    checkout = work / "checkout"
    checkout.mkdir()
    for name in ("recbole_ext", "docs", "examples", "tests", *DATA_FOLDERS):
        shutil.copytree(
            ROOT / name,
            checkout / name,
            ignore=shutil.ignore_patterns("__pycache__", "integration"),
        )
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, checkout)
    sdist = work / build("sdist", checkout, work)
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """A wheel built from the source archive: so the archive is complete too."""
    return source.parent / build("wheel", source, source.parent)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    return Parser().parsestr(read(wheel, "METADATA"))


def build(kind: str, source: Path, target: Path) -> str:
    """Run the build backend as pip does, and return the name of the file that it made."""
    code = f"import setuptools.build_meta as b; print('made', b.build_{kind}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [
            member for member in archive.namelist() if member.endswith(f".dist-info/{name}")
        ]
        return archive.read(found).decode()


def required(metadata: Message, python: str) -> dict[str, Requirement]:
    """Return what the package without extras requires on a Python version, by name."""
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    environment = {"python_version": python, "extra": ""}
    return {
        canonicalize_name(r.name): r
        for r in found
        if r.marker is None or r.marker.evaluate(environment)
    }


def pins(file: str, python: str) -> dict[str, str]:
    """Return the versions that a constraints file gives on a Python version, by name."""
    lines = [
        line
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
        if line and line[0] != "#"
    ]
    found = [Requirement(line) for line in lines]
    assert all(str(r.specifier).startswith("==") for r in found)
    chosen = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len({canonicalize_name(r.name) for r in chosen}) == len(chosen), (
        "a name has two versions"
    )
    return {canonicalize_name(r.name): str(r.specifier)[2:] for r in chosen}


def test_source_archive_has_what_the_makefile_reads(source):
    """``make demo`` and ``make test`` work from the archive as from a checkout."""
    named = set(
        re.findall(r"[\w./-]+\.(?:yaml|py|txt|cfg|toml)\b", (source / "Makefile").read_text())
    )
    assert {"examples/demo.yaml", "run_recbole_ext.py", "constraints.txt"} <= named
    assert {name for name in named if not (source / name).is_file()} == set()


def test_wheel_carries_the_package_its_prompts_and_the_yaml_files_and_nothing_else(wheel):
    expected = {
        f"recbole_ext/{p.relative_to(ROOT)}"
        for d in DATA_FOLDERS
        for p in (ROOT / d).rglob("*.yaml")
    }
    assert len(expected) > 5
    prompts = list((ROOT / "recbole_ext" / "rerankers" / "prompts").iterdir())
    sources = [*prompts, *(ROOT / "recbole_ext").rglob("*.py")]
    expected |= {str(path.relative_to(ROOT)) for path in sources}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == expected


def test_installed_package_finds_its_yaml_files_in_itself(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "from recbole_ext import paths\n"
        "print(paths.model_yaml('DuoRec'))\n"
        "print(paths.family_yaml('sequential'))\n"
        "print(paths.dataset_yaml('ml-1m'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    names = (
        "properties/model/DuoRec.yaml",
        "properties/family/sequential.yaml",
        "dataset_configs/ml-1m.yaml",
    )
    assert done.stdout.split() == [str((site / "recbole_ext" / name).resolve()) for name in names]


def test_checkout_finds_its_yaml_files_beside_the_package():
    assert [paths.data_folder(name) for name in DATA_FOLDERS] == [
        ROOT / name for name in DATA_FOLDERS
    ]


def test_a_missing_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "recbole_ext")
    with pytest.raises(paths.UserError, match=r"'properties'.*reinstall"):
        paths.data_folder("properties")


def test_command_is_installed_and_exists(wheel):
    (line,) = [
        x for x in read(wheel, "entry_points.txt").splitlines() if x.startswith("recbole-ext")
    ]
    module, _, function = line.partition("=")[2].strip().partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("python", PYTHONS)
def test_recbole_comes_where_pip_can_install_this_version_of_it(metadata, python):
    """RecBole 1.2.1 requires a ray without wheels for 3.12+, where pip would take RecBole 1.2.0."""
    names = required(metadata, python)
    if python in ("3.10", "3.11"):
        assert str(names["recbole"].specifier) == "==1.2.1"
    else:
        assert "recbole" not in names


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_recbole_without_dependencies_finds_those_that_it_uses(metadata, python):
    declared = [Requirement(line) for line in importlib.metadata.requires("recbole")]
    used = {
        canonicalize_name(r.name): r
        for r in declared
        if r.marker is None and r.name not in UNUSED_BY_RECBOLE
    }
    ours = required(metadata, python)
    assert used.keys() <= ours.keys()
    newest = pins("constraints.txt", python)
    assert {
        name: newest[name] for name, r in used.items() if not r.specifier.contains(newest[name])
    } == {}


@pytest.mark.parametrize(
    ("file", "python"),
    [*(("constraints.txt", python) for python in PYTHONS), ("constraints-old.txt", "3.11")],
)
def test_tested_versions_lie_in_the_declared_ranges(metadata, file, python):
    tested = pins(file, python)
    names = required(metadata, python)
    assert {name for name in names if name not in tested} == set()
    outside = {
        name: tested[name] for name, r in names.items() if not r.specifier.contains(tested[name])
    }
    assert outside == {}


def begins_at(bound: str, tested: str) -> bool:
    """Tell whether a lower bound is a tested version; it may leave out the patch number only."""
    low, run = Version(bound), Version(tested)
    return low <= run and (low.major, low.minor) == (run.major, run.minor)


@pytest.mark.parametrize(
    ("bound", "tested", "fits"),
    [
        ("1.12", "1.12.0", True),
        ("1.12.0", "1.12.0", True),
        ("15", "15.0.2", True),
        ("1.1", "1.12.0", False),
        ("1", "1.12.0", False),
        ("1.12.1", "1.12.0", False),
        ("2.2", "2.22.0", False),
    ],
)
def test_a_lower_bound_is_compared_number_by_number(bound, tested, fits):
    assert begins_at(bound, tested) is fits


def with_extras(metadata: Message, python: str) -> dict[str, Requirement]:
    """Return what the package and its extras require, but for the developer's tools."""
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    extras = [extra for extra in metadata.get_all("Provides-Extra") if extra != "dev"]
    places = [{"python_version": python, "extra": extra} for extra in ("", *extras)]
    return {
        canonicalize_name(r.name): r
        for r in found
        if r.marker is None or any(r.marker.evaluate(place) for place in places)
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_every_range_begins_at_a_tested_version(metadata, python):
    """A lower bound is a claim: CI runs it. Of xgboost, lightgbm and wandb one version is run."""
    oldest = {**pins("constraints.txt", python), **pins("constraints-old.txt", "3.11")}
    names = with_extras(metadata, python)
    assert {"scipy", "hyperopt", "xgboost", "pytest"} <= names.keys()
    assert ("psutil" in names) == (python in ("3.12", "3.13"))
    untested = {}
    for name, requirement in names.items():
        lows = [c.version for c in requirement.specifier if c.operator in (">=", "==")]
        if len(lows) != 1 or not begins_at(lows[0], oldest[name]):
            untested[name] = str(requirement.specifier)
    assert untested == {}


def test_the_pythons_are_those_of_the_classifiers(metadata):
    allowed = SpecifierSet(metadata["Requires-Python"])
    listed = [f"Programming Language :: Python :: {python}" for python in PYTHONS]
    assert set(listed) <= set(metadata.get_all("Classifier"))
    inside = [f"3.{minor}" for minor in range(8, 17) if allowed.contains(f"3.{minor}.1")]
    assert inside == list(PYTHONS)


FOREIGN = """#!/bin/sh
echo 3.9
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("is_another", [True, False])
def test_make_does_not_use_the_environment_of_another_python(tmp_path, is_another):
    """The stamps are there, so that all was done already: it must be told all the same."""
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    place = tmp_path / ".venv" / "bin"
    place.mkdir(parents=True)
    own = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    (place / "python").write_text(FOREIGN if is_another else own)
    (place / "python").chmod(0o755)
    stamp = tmp_path / ".venv" / ".stamp-run"
    stamp.touch()

    def make(*arguments: str) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
        command = ["make", "-C", str(tmp_path), ".venv/.stamp-run", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = make(f"PYTHON={sys.executable}")
    if is_another:
        said = [line for line in done.stderr.splitlines() if "distclean" in line]
        assert done.returncode == 2 and len(said) == 1 and "of Python 3.9" in said[0]
    else:
        assert done.returncode == 0, done.stderr
    assert make().returncode == 0  # nobody asked for a Python: the one that is there serves
