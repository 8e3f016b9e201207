"""What a command prints: the table at the end of a run, and the neighbours behind a user's list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_ext.data.titles import read_titles
from recbole_ext.interfaces import Explainable
from recbole_ext.quick_start import Run, load_run
from recbole_ext.types import UserError, suggest

SHOWN_ITEMS = 8
"""Items of a history that ``explain`` shows."""


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
        lines.append(
            "  ".join(
                [
                    model.ljust(width),
                    *(
                        cell.rjust(max(9, len(name)))
                        for cell, name in zip(cells, names, strict=True)
                    ),
                ]
            )
        )
    total = sum(result["seconds"].values())
    peak = max(v for k, v in result["peak_memory_gib"].items() if not k.endswith("_gpu"))
    if not names:
        lines.append("no test metrics: eval_args.split leaves no test set")
    lines += [
        "",
        f"{total:.0f} seconds, peak memory {peak:.1f} GiB, "
        f"mask_history {result['mask_history']}, seed {result['seed']}",
        f"run folder: {result['folder']}",
    ]
    return "\n".join(lines)


def explain_user(folder: Path, user: str, k: int = 10) -> str:
    """Return a user's last items and the neighbours behind their list, with titles if any.

    Args:
        folder: Run folder.
        user: The user's own token.
        k: Neighbours to show, the heaviest first.

    Raises:
        UserError: No such run, a model that cannot explain, or an unknown user.
    """
    run = load_run(folder)
    if not isinstance(run.model, Explainable):
        raise UserError(
            f"{run.config['model']} retrieves nothing that could be explained; FTRagRec does"
        )
    dataset = run.dataset
    tokens = dataset.field2token_id[dataset.uid_field]
    if user not in tokens:
        raise UserError(
            f"there is no user '{user}' in {run.config['dataset']}{suggest(user, tokens)}; give "
            f"one as its .inter file has it, and whom its filters leave, as {list(tokens)[1]}"
        )
    history = _history(run, tokens[user])
    titles = read_titles(run.config)

    def named(token: str) -> str:
        return f"{token} ({titles[token]})" if token in titles else token

    items = [
        named(dataset.field2id_token[dataset.iid_field][item]) for item in history[-SHOWN_ITEMS:]
    ]
    found = run.model.explain(tokens[user], history=history)
    lines = [f"user {user}, last {len(items)} of {len(history)} items, the oldest first:"]
    lines += [f"  {item}" for item in items]
    if found:
        alone = "; the list is the encoder's alone" if found[0].alpha == 0 else ""
        lines.append(f"weight of the neighbours (alpha): {found[0].alpha:.4g}{alone}")
    lines.append(
        f"the {min(k, len(found))} heaviest of {len(found)} neighbours; weights sum to 1 over all:"
    )
    lines.append("  similarity  weight  what followed, and the user whose moment it was")
    lines += [
        f"  {one.similarity:10.4f}  {one.weight:6.4f}  {named(one.target_token)} "
        f"- user {one.user_token} after {named(one.prefix_tokens[-1])}"
        for one in found[:k]
    ]
    return "\n".join(lines)


def _history(run: Run, user: int) -> list[int]:
    """Return what a user took before the test item: the prefix of the user's test row."""
    rows = run.test_data._dataset.inter_feat
    mine = (rows[run.dataset.uid_field] == user).nonzero().flatten()
    if len(mine) == 0:
        raise UserError("this user has no test row: too few interactions to hold one out")
    row = mine[-1]
    length = int(rows[run.config["ITEM_LIST_LENGTH_FIELD"]][row])
    return rows[run.dataset.iid_field + run.config["LIST_SUFFIX"]][row, :length].tolist()
