"""The documentation is run: the example as it stands, every command to its settings, every link."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, write_tiny_dataset

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.config import Config
from recbole_ext.quick_start import run
from recbole_ext.types import UserError

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
YAMLS = sorted([*(ROOT / "properties").rglob("*.yaml"), *(ROOT / "dataset_configs").glob("*.yaml")])
OF_NO_SINGLE_RUN = ("ablation", "reranker", "pipeline")
EXAMPLE = (ROOT / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
COMMAND = re.compile(
    r"^(?:# |\s*)?(?:python run_recbole_ext\.py|recbole-ext run) (--.*)$", re.MULTILINE
)


def example_files() -> dict[str, str]:
    """Return the files of the worked example: a path in backquotes before each code block."""
    return dict(re.findall(r"^`([\w/.]+)`\n```\w+\n(.*?)^```", EXAMPLE, re.MULTILINE | re.DOTALL))


def commands(page: str) -> list[str]:
    """Return the lines of a page's bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the example needs of this checkout, with the example's files in it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("recbole_ext", "properties", "dataset_configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests").mkdir()
    for name in ("pyproject.toml", "run_recbole_ext.py", "tests/conftest.py", "tests/contracts.py"):
        shutil.copy(ROOT / name, copy / name)
    for name, code in example_files().items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(code, encoding="utf-8")
    outside = copy / "my_models"
    outside.mkdir()
    files = {Path(name).name: code for name, code in example_files().items()}
    head, mark, body = files["meanseq.py"].partition('recency only."""\n')
    assert mark
    family = '\n    family = "sequential"\n'
    (outside / "meanseq.py").write_text(head + mark + family + body, encoding="utf-8")
    (outside / "MeanSeq.yaml").write_text(files["MeanSeq.yaml"], encoding="utf-8")
    return copy


def test_the_readmes_callbacks_train_the_model_it_names(tmp_path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(callbacks:.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert (
        "--model=SASRec --dataset=ml-100k --epochs=5 --accelerate=True --config_files=slow" in page
    )
    write_tiny_dataset(tmp_path, "ml-100k")
    settings = {**yaml.safe_load(block), "data_path": str(tmp_path), "epochs": 1, "use_gpu": False}
    result = run("SASRec", "ml-100k", config_dict={**settings, "output_dir": str(tmp_path / "run")})
    assert result["n_epochs"] == 1


def test_the_example_is_a_model_its_settings_and_a_test():
    assert list(example_files()) == [
        "recbole_ext/models/sequential/meanseq.py",
        "properties/model/MeanSeq.yaml",
        "tests/models/test_meanseq.py",
    ]
    assert len(commands(EXAMPLE)) == 3


@pytest.mark.parametrize("command", commands(EXAMPLE))
def test_the_example_runs(command, checkout, tmp_path):
    write_tiny_dataset(tmp_path, "ml-100k")
    program, *arguments = shlex.split(command)
    assert program == "python"
    if "--dataset=ml-100k" in arguments:  # thirty users by that name: this is no test of speed
        arguments.append(f"--data_path={tmp_path}")
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "pytest" in command:
        assert re.search(r"\d+ passed", done.stdout)
        assert "failed" not in done.stdout
    else:
        assert re.search(r"^MeanSeq +0\.\d{4} ", done.stdout, re.MULTILINE), "no row of results"


@pytest.mark.parametrize("path", [*PAGES, *YAMLS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_has_settings_that_exist(path):
    """A command in a page, or at the head of a YAML file, must get past the check of settings."""
    lines, refused = COMMAND.findall(path.read_text(encoding="utf-8")), {}
    assert lines or path.suffix == ".md" or path.parent.name in OF_NO_SINGLE_RUN
    for line in lines:
        settings = {}
        for argument in shlex.split(line.split("  #")[0]):
            key, _, value = argument.removeprefix("--").partition("=")
            settings[key] = value
        if (
            settings.keys() & {"resume"}
            or ":" in settings["model"]
            or settings["model"] == "MeanSeq"
        ):
            continue
        files = []
        if "config_files" in settings:
            named = [ROOT / name for name in settings.pop("config_files").split()]
            template = ROOT / "dataset_configs" / "template.yaml"
            files = [name if name.is_file() else template for name in named]
        model, dataset = settings.pop("model"), settings.pop("dataset")
        try:
            Config(model, dataset, files, overrides=[f"--{k}={v}" for k, v in settings.items()])
        except UserError as error:
            refused[line] = str(error)
    assert refused == {}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_callback_example_can_be_built():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(callbacks:.*?)^```", text, re.MULTILINE | re.DOTALL)
    specs = yaml.safe_load(block)["callbacks"]
    assert len(build_callbacks(specs)) == len(specs) > 1


def test_readme_has_no_gap():
    """Outputs are put in by hand after they were seen; none may be left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- .*output.*-->", text) == []
