"""For the tests of the repairs: a fresh interpreter, and small datasets of RecBole's classes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

import recbole_ext  # noqa: F401 - the repairs must be there before RecBole is

INTER = "user_id:token\titem_id:token\ttimestamp:float"
SIX = ["u1\ti1\t1", "u1\ti2\t2", "u1\ti3\t3", "u2\ti1\t4", "u2\ti2\t5", "u2\ti4\t6"]
"""Two users, four items."""


def write(folder: Path, **files: list[str]) -> None:
    """Write the dataset ``hand``: ``inter=[header, row, ...]``, ``item=...``."""
    place = folder / "hand"
    place.mkdir(exist_ok=True)
    for suffix, lines in files.items():
        (place / f"hand.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config(folder: Path, model: str = "BPR", **settings: Any) -> Any:
    """Return RecBole's own Config for the dataset ``hand`` in ``folder``."""
    from recbole.config import Config

    defaults = {
        "data_path": str(folder),
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(folder / "saved"),
        "load_col": None,
        "numerical_features": [],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full"},
        "epochs": 1,
    }
    with mock.patch.object(sys, "argv", ["test"]):
        return Config(model=model, dataset="hand", config_dict={**defaults, **settings})


def dataset(folder: Path, model: str = "BPR", **settings: Any) -> Any:
    """Return the dataset ``hand`` in ``folder`` as RecBole makes it."""
    from recbole.data import create_dataset

    return create_dataset(config(folder, model, **settings))


def built(folder: Path, model: str = "BPR", **settings: Any) -> Any:
    """Return the training part of ``hand``, its columns turned into tensors."""
    return dataset(folder, model, **settings).build()[0]


WITHOUT = """
    import sys
    class Without:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == {name!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Without())
"""


def run(code: str, *, without: str | None = None) -> str:
    """Run code in an interpreter of its own, one package hidden from it; return what it printed."""
    hide = WITHOUT.format(name=without) if without else ""
    whole = textwrap.dedent(hide) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
