"""What a command prints: the table at the end of a run, and the neighbours behind a user's list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_ext.interfaces import Explainable
from recbole_ext.quick_start import load_run
from recbole_ext.types import UserError, suggest


def result_table(result: dict[str, Any]) -> str:
    """Return the test metrics of a run, its warm start's above them, and where everything is."""
    rows = [(result["model"], result["test"])]
    warm_start = result.get("warm_start")
    if warm_start and (Path(warm_start) / "result.json").is_file():
        before = json.loads((Path(warm_start) / "result.json").read_text(encoding="utf-8"))
        rows.insert(0, (before["model"], before["test"]))
    names = list(result["test"])
    width = max([len("test"), *(len(name) for name, _ in rows)])
    lines = ["", "  ".join(["test".ljust(width), *(name.rjust(9) for name in names)])]
    for model, test in rows:
        cells = [f"{test[name]:.4f}" if name in test else "-" for name in names]
        lines.append("  ".join([model.ljust(width), *(cell.rjust(max(9, len(name))) for cell, name in zip(cells, names, strict=True))]))
    total = sum(result["seconds"].values())
    peak = max(v for k, v in result["peak_memory_gib"].items() if not k.endswith("_gpu"))
    lines += ["", f"{total:.0f} seconds, peak memory {peak:.1f} GiB, mask_history {result['mask_history']}, seed {result['seed']}",
              f"run folder: {result['folder']}"]
    return "\n".join(lines)


def explain_user(folder: Path, user: str, k: str | None = None) -> str:
    """Return a user's last items and the neighbours behind their list, with titles where the item file has them.

    Raises:
        UserError: No such run, a model that cannot explain, or an unknown user.
    """
    run = load_run(folder)
    if not isinstance(run.model, Explainable):
        raise UserError(f"{run.config['model']} retrieves nothing that could be explained; FTRagRec does")
    dataset = run.dataset
    tokens = dataset.field2token_id[dataset.uid_field]
    if user not in tokens:
        raise UserError(f"there is no user '{user}' in {run.config['dataset']}{suggest(user, tokens)}")
    return str(run.model.explain(tokens[user]))
