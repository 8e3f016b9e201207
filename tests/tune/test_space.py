"""The file of a search space: its kinds, and one sentence for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from recbole_ext.tune.space import Range, corners, read_space
from recbole_ext.types import UserError


class Asked:
    """A trial that answers with the upper end, or the last choice, and remembers the question."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def suggest_float(self, key: str, low: float, high: float, step: Any, log: bool) -> float:
        self.asked.append((key, "float", low, high, step, log))
        return high

    def suggest_int(self, key: str, low: int, high: int, log: bool) -> int:
        self.asked.append((key, "int", low, high, log))
        return high

    def suggest_categorical(self, key: str, choices: list[Any]) -> Any:
        self.asked.append((key, "choice", choices))
        return choices[-1]


def space_of(tmp_path: Path, text: str) -> dict[str, Range]:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path)


def test_each_kind_asks_for_what_its_name_says(tmp_path):
    space = space_of(
        tmp_path,
        "learning_rate: {loguniform: [1e-4, 1e-2]}\n"
        "dropout_prob: {uniform: [0, 0.5]}\n"
        "reg_weight: {quniform: [0, 1, 0.25]}\n"
        "n_layers: {int: [1, 4]}\n"
        "embedding_size: {logint: [8, 64]}\n"
        "mlp_hidden_size: {choice: [[64], [128, 64]]}\n"
        "train_neg_sample_args.sample_num: {choice: [1, 4]}\n",
    )
    trial = Asked()
    values = {key: one.suggest(trial, key) for key, one in space.items()}
    assert values == {
        "learning_rate": 0.01,
        "dropout_prob": 0.5,
        "reg_weight": 1,
        "n_layers": 4,
        "embedding_size": 64,
        "mlp_hidden_size": [128, 64],
        "train_neg_sample_args.sample_num": 4,
    }
    assert trial.asked == [
        ("learning_rate", "float", 1e-4, 1e-2, None, True),
        ("dropout_prob", "float", 0, 0.5, None, False),
        ("reg_weight", "float", 0, 1, 0.25, False),
        ("n_layers", "int", 1, 4, False),
        ("embedding_size", "int", 8, 64, True),
        ("mlp_hidden_size", "choice", ["[64]", "[128, 64]"]),  # SQLite takes no lists
        ("train_neg_sample_args.sample_num", "choice", [1, 4]),
    ]


def test_what_is_stored_becomes_the_setting_again():
    lists = Range("choice", ([64], [128, 64]))
    assert [lists.value_of(json.dumps(value)) for value in lists.values] == [[64], [128, 64]]
    assert Range("choice", (8, 16)).value_of(16) == 16
    assert Range("uniform", (0.0, 1.0)).value_of(0.3) == 0.3


def test_corners_have_every_end_and_every_choice():
    space = {"a": Range("uniform", (0.0, 1.0)), "b": Range("choice", (1, 2, 3))}
    assert corners(space) == [{"a": 0.0, "b": 1}, {"a": 1.0, "b": 2}, {"a": 0.0, "b": 3}]


def test_the_ends_of_a_range_are_what_is_drawn_from_it():
    """A number between two whole ones is none, so an ``int`` setting must not let the ends pass."""
    assert [type(end) for end in Range("quniform", (8, 64, 8)).ends] == [float, float]
    assert [type(end) for end in Range("uniform", (8, 64)).ends] == [float, float]
    assert [type(end) for end in Range("logint", (8, 64)).ends] == [int, int]


def test_a_range_may_end_on_any_of_its_steps(tmp_path):
    """In the numbers as they are written: 0.3 / 0.1 is no whole number to the machine."""
    space = space_of(tmp_path, "a: {quniform: [0.0, 0.3, 0.1]}\nb: {quniform: [1e-4, 1e-3, 1e-4]}")
    assert [one.values[1] for one in space.values()] == [0.3, 1e-3]


def test_the_space_of_the_documentation_can_be_read(tmp_path):
    page = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert list(space_of(tmp_path, block)) == ["learning_rate", "embedding_size"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the space is empty; write learning_rate: {loguniform: [1e-4, 1e-2]}"),
        (
            "n_layers: {int: [4, 1]}",
            "n_layers: the range of int is upside down or empty, [4, 1]; write [1, 4]",
        ),
        ("n_layers: {int: [2, 2]}", "a single value is no search"),
        ("n_layers: {int: [1, 2.5]}", "int takes 2 whole numbers, as [1, 4], not [1, 2.5]"),
        ("n_layers: {int: [1, true]}", "int takes 2 whole numbers"),
        ("n_layers: {int: [1]}", "int takes 2 whole numbers"),
        ("a: {uniform: [0, .inf]}", "uniform takes 2 numbers"),
        ("a: {quniform: [0, 1]}", "quniform takes 3 numbers, as [0.0, 0.5, 0.1]"),
        ("a: {quniform: [0, 1, 2]}", "the step of quniform [0, 1, 2] is not between"),
        (
            "a: {quniform: [0.1, 1, 0.4]}",
            "quniform [0.1, 1, 0.4] does not end on a step; write [0.1, 0.9, 0.4]",
        ),
        ("a: {loguniform: [-8, 0]}", "above 0, as [1e-4, 1e-2] (RecBole's exponents -8,0 are"),
        ("a: {logunifrom: [1, 2]}", "no kind 'logunifrom'; did you mean 'loguniform'"),
        ("a: [1, 2]", "a needs one kind of search; write a: {choice: [32, 64, 128]}"),
        ("a: {choice: 3}", "choice takes a list"),
        ("a: {choice: [3, 3]}", "has a value twice"),
        ("a: {choice: [1, true]}", "has a value twice"),
        ("a: {choice: [3, null]}", "has an empty value"),
        ("choice: {embedding_size: [8, 16]}", "choice is a kind of search, no setting"),
        (
            "a: {choice: [{b: 1}, {b: 2}]}\na.b: {int: [1, 4]}",
            "a.b is an entry of a, which is searched as a whole; keep one",
        ),
        ("seed: {int: [1, 9]}", "seed is no setting to search"),
        ("eval_args.order: {choice: [RO, TO]}", "eval_args.order is no setting to search"),
        *(
            (f"{key}: {{choice: [1, 2]}}", f"{key} is no setting to search")
            for key in (
                *("threshold", "benchmark_filename", "LABEL_FIELD", "USER_ID_FIELD", "repeatable"),
                *("metric_decimal_place", "valid_metric_bigger"),
            )
        ),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, text, complaint):
    with pytest.raises(UserError) as raised:
        space_of(tmp_path, text)
    sentence = str(raised.value)
    assert complaint in sentence and "space.yaml" in sentence and "\n" not in sentence
