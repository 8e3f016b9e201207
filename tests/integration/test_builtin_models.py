"""The sweep over RecBole's built-in models, and what it rests on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).resolve().parent


def sweep(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(HERE / "builtin_models.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_slice_has_what_each_family_reads(tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE))
    try:
        from ml100k_slice import NAME, write_slice
    finally:
        sys.path.remove(str(HERE))
    users, items, rows = write_slice(tmp_path)
    kinds = ("inter", "user", "item", "link", "kg", "ent", "rel")
    read = {
        kind: pd.read_csv(tmp_path / NAME / f"{NAME}.{kind}", sep="\t", dtype=str) for kind in kinds
    }
    inter = read["inter"]
    counts = inter["item_id:token"].value_counts()
    assert (inter["user_id:token"].nunique(), len(counts), len(inter)) == (users, items, rows)
    assert users == 100 and counts.min() >= 5
    assert set(read["item"]["item_id:token"]) == set(counts.index)
    assert set(read["user"]["user_id:token"]) == set(inter["user_id:token"])
    assert set(read["link"]["item_id:token"]) <= set(counts.index) and len(read["link"]) > 0
    heads = set(read["kg"]["head_id:token"])
    assert heads and heads <= set(read["link"]["entity_id:token"])
    assert heads | set(read["kg"]["tail_id:token"]) <= set(read["ent"]["ent_id:token"])
    assert set(read["kg"]["relation_id:token"]) == set(read["rel"]["rel_id:token"])


@pytest.mark.slow
def test_a_model_that_does_not_end_in_time_makes_the_sweep_fail() -> None:
    done = sweep("--models", "Pop", "--timeout", "0.01")
    assert done.returncode == 1
    assert re.search(r"^Pop +general +no .*not done after", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_ninety_built_in_models_train() -> None:
    done = sweep()
    assert done.returncode == 0, done.stdout
    trained = re.search(r"^(\d+) trained, 0 failed", done.stdout, re.MULTILINE)
    assert trained and int(trained[1]) >= 90, done.stdout
