"""Compares our runner on this interpreter with plain RecBole on a pinned old stack.

    python tests/integration/parity.py --old-python=/path/to/old/bin/python

The old stack is numpy 1.26.4, scipy 1.12.0, pandas 2.2.3, scikit-learn 1.5.2, setuptools < 81 and
recbole 1.2.1, without recbole_ext. The exit code is 1 when a metric differs by more than 5e-5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ENTRY = Path(__file__).resolve().parents[2] / "run_recbole_ext.py"
TOLERANCE = 5e-5

COMMON: dict[str, Any] = {
    "epochs": 3,
    "show_progress": False,
    "use_gpu": False,
    "metric_decimal_place": 6,  # RecBole rounds to 4, which would hide or exaggerate a difference
    "topk": [10, 20],
}
MODEL: dict[str, dict[str, Any]] = {
    "BPR": {},
    "LightGCN": {},
    "DeepFM": {"topk": [10]},
    # A small SASRec: the default takes minutes per epoch on a CPU.
    "SASRec": {
        "train_neg_sample_args": None,
        "epochs": 2,
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 32,
        "n_layers": 1,
    },
}

PLAIN = """
import json, sys
model, settings, out = sys.argv[1:]
sys.argv = sys.argv[:1]
from recbole.quick_start import run_recbole
result = run_recbole(model=model, dataset="ml-100k", config_file_list=[settings])
parts = {"valid": result["best_valid_result"], "test": result["test_result"]}
plain = {part: {k: float(v) for k, v in metrics.items()} for part, metrics in parts.items()}
open(out, "w").write(json.dumps(plain))
"""

Metrics = dict[str, float]


def ours(model: str, settings: Path, folder: Path, python: str) -> Metrics:
    """Run a model through ``run_recbole_ext.py``."""
    place = folder / f"ours-{model}"
    arguments = [f"--model={model}", "--dataset=ml-100k", f"--config_files={settings}"]
    run([python, str(ENTRY), *arguments, f"--output_dir={place}"], folder)
    result = json.loads((place / "result.json").read_text())
    return flat({"valid": result["best_valid"], "test": result["test"]})


def plain(model: str, settings: Path, folder: Path, python: str) -> Metrics:
    """Run a model through plain RecBole."""
    out = folder / f"plain-{model}.json"
    run([python, "-c", PLAIN, model, str(settings), str(out)], folder)
    return flat(json.loads(out.read_text()))


def run(command: list[str], folder: Path) -> None:
    """Run a command in ``folder``; show what it wrote when it fails."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    # An old stack may hold a torch that no longer reads RecBole's checkpoints unasked.
    environment = {**os.environ, **threads, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:2])} ... failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def flat(parts: dict[str, dict[str, float]]) -> Metrics:
    """Return ``{"test recall@10": ...}`` of ``{"test": {"recall@10": ...}}``."""
    return {
        f"{part} {name.lower()}": value for part, of in parts.items() for name, value in of.items()
    }


def compare(model: str, new: Metrics, old: Metrics) -> int:
    """Print the metrics of both, and return how many differ."""
    different = 0
    for name in sorted(new.keys() | old.keys()):
        left, right = new.get(name, float("nan")), old.get(name, float("nan"))
        gap = abs(left - right)
        same = gap <= TOLERANCE  # False for nan too: a metric that only one side has
        different += not same
        mark = "" if same else "  DIFFERS"
        print(f"{model:<10}{name:<20}{left:>12.6f}{right:>12.6f}{gap:>12.1e}{mark}", flush=True)
    return different


def main() -> int:
    """Run both sides; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old-python", required=True, help="interpreter of the pinned old stack")
    parser.add_argument("--models", nargs="+", choices=MODEL, default=list(MODEL))
    chosen = parser.parse_args()
    different = 0
    print(f"{'model':<10}{'metric':<20}{'ours, new':>12}{'plain, old':>12}{'difference':>12}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for model in chosen.models:
            settings = folder / f"{model}.yaml"
            settings.write_text(yaml.safe_dump({**COMMON, **MODEL[model]}))
            new = ours(model, settings, folder, sys.executable)
            different += compare(model, new, plain(model, settings, folder, chosen.old_python))
    print(f"\n{different} metrics differ by more than {TOLERANCE}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
