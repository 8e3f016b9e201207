from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.build import build_callbacks, known_callbacks, snake_case
from recbole_ext.callbacks.faiss_refresh import FaissRefresh
from recbole_ext.callbacks.freeze import Freeze
from recbole_ext.types import UserError


def build(text: str) -> list[Callback]:
    return build_callbacks(yaml.safe_load(text))


def test_a_list_is_built_in_its_order() -> None:
    built = build("- Freeze: {rules: []}\n- FaissRefresh\n- FaissRefresh: {every: 3}")
    assert [type(callback) for callback in built] == [Freeze, FaissRefresh, FaissRefresh]


@pytest.mark.parametrize("text", ["null", "[]"])
def test_nothing_asked_for_is_nothing_built(text: str) -> None:
    assert build(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FaissRefresh: {every: 1}", ["takes a list"]),
        ("FaissRefresh", ["takes a list"]),
        ("- 3", ["each entry", "3"]),
        ("- [FaissRefresh]", ["each entry"]),
        ("- {}", ["each entry"]),
        ("- 1: {every: 2}", ["each entry"]),
        ("- FaissRefresh:\n  every: 1", ["each entry", "indented"]),
        ("- FaissRefresh: 3", ["FaissRefresh takes arguments by name, not 3"]),
        ("- FaissRefresh: [3]", ["by name"]),
        ("- FaisRefresh", ["unknown callback 'FaisRefresh'", "did you mean 'FaissRefresh'"]),
        ("- faiss_refresh", ["unknown callback", "FaissRefresh"]),
        ("- early_stop", ["did you mean 'EarlyStop'"]),
        (
            "- Xyz",
            ["unknown callback 'Xyz'", "there are: AdaptiveAlternate, ", "my_module:MyCallback"],
        ),
        ("- Callback", ["unknown callback"]),
        ("- Hold", ["unknown callback"]),
        ("- FaissRefresh: {evry: 3}", ["no argument 'evry'", "did you mean 'every'"]),
        (
            "- FaissRefresh: {every: two}",
            ["FaissRefresh: every takes an integer or null, not 'two'"],
        ),
        ("- FaissRefresh: {every: 1.5}", ["every takes an integer or null, not 1.5"]),
        ("- FaissRefresh: {every: true}", ["every takes an integer or null, not True"]),
        ("- FaissRefresh: {before_valid: 1}", ["before_valid takes true or false, not 1"]),
        ("- FaissRefresh: {every: 0}", ["FaissRefresh: every must be at least 1, not 0"]),
        ("- FaissRefresh: {1: 2}", ["no argument '1'"]),
        ("- EarlyStop: {metric: a, mode: maxx}", ["'max' or 'min', not 'maxx'", "mean 'max'"]),
        ("- EarlyStop: {metric: a, min_delta: .nan}", ["min_delta must be at least 0, not nan"]),
        ("- Progress: {every: 1}", ["no argument 'every' (it takes none)"]),
        ("- Checkpoint: {keep: all}", ["keep takes an integer or null, not 'all'"]),
        ("- UncertaintyWeights: {names: rec}", ["names takes a list", "a string"]),
        ("- UncertaintyWeights: {names: [1]}", ["names takes a list", "not [1]"]),
        ("- Freeze: {rules: {pattern: a}}", ["rules takes a list"]),
        ("- no_such_package.module:Mine", ["cannot import 'no_such_package'", "PYTHONPATH"]),
        ("- 'pathlib:Pth'", ["'pathlib' has no class 'Pth'", "did you mean 'Path'"]),
        ("- 'pathlib:Path'", ["is no subclass of recbole_ext.callbacks.base.Callback"]),
        ("- 'sys:path'", ["is no subclass"]),
        ("- ':Mine'", ["my_package.my_module:MyCallback"]),
        ("- '.mine:Mine'", ["my_package.my_module:MyCallback"]),
    ],
)
def test_a_wrong_form_is_one_sentence(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build(text)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_every_callback_file_is_found_by_its_name() -> None:
    folder = Path(sys.modules[FaissRefresh.__module__].__file__ or "").parent
    helpers = {"__init__", "arguments", "base", "build", "hold", "loss_names", "plateau"}
    files = {path.stem for path in folder.glob("*.py")} - helpers
    assert {snake_case(name) for name in known_callbacks()} == files


def test_a_callback_is_imported_alone() -> None:
    program = (
        "import sys; from recbole_ext.callbacks.build import build_callbacks;"
        "build_callbacks([{'LogLosses': {'every': 1}}]);"
        "print([m for m in sys.modules if m.startswith('recbole_ext.callbacks.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    found = set(re.findall(r"callbacks\.(\w+)", done.stdout))
    assert found == {"base", "build", "arguments", "log_losses"}, done.stderr


OWN = """
from __future__ import annotations
from typing import TYPE_CHECKING
from recbole_ext.callbacks.base import Callback
if TYPE_CHECKING:
    from nowhere import Thing

class Mine(Callback):
    def __init__(self, size: int, thing: Thing = None, **rest: object) -> None:
        self.size, self.rest = size, rest

class Greedy(Callback):
    def __init__(self, sizes: list) -> None:
        sizes.append(0)

class Typed(Callback):
    def __init__(self, size: int) -> None:
        self.size = size
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_pkg_for_build").mkdir()
    (tmp_path / "my_pkg_for_build" / "mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_pkg_for_build.mine"


def test_a_callback_of_ones_own(own_package: str) -> None:
    (mine,) = build_callbacks([{f"{own_package}:Mine": {"size": 3, "colour": "red"}}])
    state: Any = vars(mine)
    assert state == {"size": 3, "rest": {"colour": "red"}}


def test_a_callback_of_ones_own_is_checked_too(own_package: str) -> None:
    with pytest.raises(UserError, match="did you mean 'size'"):
        build_callbacks([{f"{own_package}:Typed": {"sizes": 3}}])
    with pytest.raises(UserError, match="size takes an integer, not 'big'"):
        build_callbacks([{f"{own_package}:Typed": {"size": "big"}}])


def test_a_callback_has_its_own_copy_of_its_arguments(own_package: str) -> None:
    specs = [{f"{own_package}:Greedy": {"sizes": [3]}}]  # config.yaml is written from this one
    build_callbacks(specs)
    assert specs == [{f"{own_package}:Greedy": {"sizes": [3]}}]


def test_a_bug_in_ones_own_module_is_shown_as_it_is(own_package: str, tmp_path: Path) -> None:
    (tmp_path / "my_pkg_for_build" / "broken.py").write_text("None.nothing\n")
    with pytest.raises(AttributeError, match="nothing"):
        build_callbacks(["my_pkg_for_build.broken:Mine"])


LIMITED = {
    "AdaptiveAlternate": {
        "parts": [
            {"name": "one", "train": "head.*", "losses": ["rec"]},
            {"name": "two", "train": "aux_head.*", "losses": ["aux"]},
        ]
    },
    "Distill": {"pairs": [{"teacher": "one", "student": "two"}]},
}
PHASES = [{"name": "first", "epochs": 1}, {"name": "joint", "epochs": 1}]


@pytest.mark.parametrize("name", LIMITED)
def test_a_phase_that_does_not_come_is_named(name: str) -> None:
    """In a phase of another name the callback would never act, and nobody would be told."""

    def limited(phase: str | None) -> dict[str, Any]:
        return {name: {**LIMITED[name], "phase": phase}}

    staged = {"Alternate": {"phases": PHASES}}
    assert len(build_callbacks([staged, limited("joint")])) == 2
    assert len(build_callbacks([limited(None)])) == 1
    words = "there is no phase 'jiont'; did you mean 'joint'.* .there are first, joint"
    with pytest.raises(UserError, match=f"{name}: {words}"):
        build_callbacks([staged, limited("jiont")])
    cycle = {"Alternate": {"phases": PHASES, "cycle": True}}  # one long phase, without a name
    for others in ([], [cycle]):
        with pytest.raises(UserError, match=f"{name}: there is no phase 'joint' .list Alternate"):
            build_callbacks([*others, limited("joint")])
