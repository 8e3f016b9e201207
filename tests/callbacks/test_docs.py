"""What docs/callbacks.md shows is what runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from callbacks.contracts import CallbackContract
from callbacks.loop import Record, fit
from torch import nn

from recbole_ext.callbacks.base import HOOKS, Callback
from recbole_ext.callbacks.build import build_callbacks, find_callback, known_callbacks
from recbole_ext.types import UserError

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`|\(none\)) \|", PAGE, re.MULTILINE)


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for tag, text in found if tag == language]


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two examples, where the page says they stand."""
    package = tmp_path / "my_package"
    package.mkdir()
    for name, source in zip(("training", "budget"), blocks("python"), strict=True):
        (package / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("my_package", "my_package.training", "my_package.budget"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)


@pytest.mark.usefixtures("my_package")
class TestDropoutSchedule(CallbackContract):
    name = "my_package.training:DropoutSchedule"
    arguments = {"prob": {"kind": "linear", "start": 0.5, "end": 0.1, "until": 3}}
    neutral = {"prob": 0.2}  # as the toy has it

    def test_a_wrong_type_is_named_with_the_value(self) -> None:
        with pytest.raises(UserError, match="prob takes a number or a mapping"):
            self.make({"prob": "half"})


@pytest.mark.usefixtures("my_package")
class TestTimeBudget(CallbackContract):
    name, arguments = "my_package.budget:TimeBudget", {"minutes": 60}
    neutral = {"minutes": 60}

    # The seconds that the two runs take differ.
    test_a_resumed_run_ends_as_the_whole_one = None  # type: ignore[assignment]
    test_a_run_that_was_broken_off_ends_as_the_whole_one = None  # type: ignore[assignment]

    def test_it_ends_training(self) -> None:
        assert fit([self.make({"minutes": 0})], epochs=5).step == 4


@pytest.mark.usefixtures("my_package")
def test_the_first_example_does_what_it_says() -> None:
    (callback,) = build_callbacks(yaml.safe_load(blocks("yaml")[3])["callbacks"])
    probs = Record(lambda state: state.model.encoder[3].p, "on_epoch_end")
    fit([callback, probs], epochs=4)
    assert probs.seen == pytest.approx([0.5, 0.46, 0.42, 0.38])
    with pytest.raises(UserError, match="Linear has no dropout layer"):
        fit([callback], model=nn.Linear(1, 1))


@pytest.mark.usefixtures("my_package")
@pytest.mark.parametrize("at", range(4))
def test_every_yaml_block_builds(at: int) -> None:
    assert len(blocks("yaml")) == 4
    specs = yaml.safe_load(blocks("yaml")[at])["callbacks"]
    assert all(isinstance(callback, Callback) for callback in build_callbacks(specs))


@pytest.mark.parametrize(("name", "arguments"), ROWS)
def test_every_row_of_the_table_builds(name: str, arguments: str) -> None:
    given: dict[str, Any] = yaml.safe_load(arguments or "{}")
    build_callbacks([{"Alternate": {"phases": [{"name": "joint"}]}}, {name: given}])
    # All arguments are shown; the second way to give the warm-up is told beside it.
    shown = set(given) | ({"warmup_ratio"} if name == "LrSchedule" else set())
    assert shown == set(inspect.signature(find_callback(name)).parameters)


def test_the_table_has_every_callback() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(known_callbacks())


def test_the_loop_has_every_hook_in_its_order() -> None:
    (loop,) = (text for text in blocks("") if "on_fit_start" in text)
    assert re.findall(r"^ *(on_\w+)", loop, re.MULTILINE) == list(HOOKS)
