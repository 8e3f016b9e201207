"""Encoding all training prefixes, the rows of FTRagRec's memory: ours against batch by batch.

The other way is what reference code does: RecBole's SASRec in evaluation mode over the training
rows in their order, padded to the full length, 2048 rows a batch. Both have the same weights; the
largest difference between the states of the rows that both encoded is among the notes. Each way
may take a random share of the rows, and its seconds are scaled up.

    python -m benchmarks.memory_build --dataset=ml-1m --data_path=../shared/data
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Clock, arguments, side_by_side

THEIRS = 4
"""Batches of the rows that the other way takes."""
BATCH = 2048


def _prepare(settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return a model of ours, the training rows, and RecBole's SASRec of the same weights."""
    import recbole_ext  # noqa: F401 - repairs RecBole on current libraries

    # isort: split
    import torch
    from recbole.model.sequential_recommender import SASRec
    from recbole.utils import init_seed

    from recbole_ext.config import Config
    from recbole_ext.data.build import create_dataset, create_loaders

    logging.disable(logging.INFO)
    fixed = {"use_gpu": False, "pretrain": "none", "freeze": "all", "callbacks": None}
    config = Config("FTRagRec", config_dict={**fixed, **settings})
    init_seed(config["seed"], True)
    train, _, _ = create_loaders(config, create_dataset(config))
    rows = train._dataset
    model = config.model_class(config, rows).eval()
    config["loss_type"] = "CE"
    theirs = SASRec(config, rows).eval()
    theirs.load_state_dict(model.encoder.state_dict(), strict=True)
    n = len(rows.inter_feat)
    some = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: THEIRS * BATCH]
    return model, theirs, some


def ours(clock: Clock, settings: dict[str, Any], share: float) -> None:
    """Our pass over all rows, or over the rows of a share of the users."""
    import torch

    model, theirs, some = _prepare(settings)
    rows = model.keeper.rows
    if share < 1:
        users = torch.randperm(rows.n_users, generator=torch.Generator().manual_seed(1))
        mine = torch.isin(rows.users, users[: int(share * len(users))])  # [R]
        from recbole_ext.modules.memory import MemoryRows

        taken = rows.order[mine]  # row ids
        rows = MemoryRows(
            rows.item_seq[taken], rows.item_seq_len[taken], rows.targets[mine], rows.users[mine]
        )
    clock.share = len(rows) / len(model.keeper.rows)
    states = torch.empty(len(rows), model.encoder.item_embedding.embedding_dim)  # [R, D]
    with clock:
        for row_ids, found in rows.encode(model.encoder, "cpu"):  # [b], [b, D]
            states[rows.place[row_ids]] = found
    with torch.no_grad():
        checked = rows.order[: 2 * 256]
        expected = theirs(rows.item_seq[checked], rows.item_seq_len[checked])  # [b, D]
    difference = (states[rows.place[checked]] - expected).abs().max()
    clock.notes = {"rows": len(rows), "difference": f"{float(difference):.1e}"}


def batch_by_batch(clock: Clock, settings: dict[str, Any]) -> None:
    """RecBole's layers over full-width rows."""
    import torch

    model, theirs, some = _prepare(settings)
    rows = model.keeper.rows
    clock.share = len(some) / len(rows)
    with torch.no_grad(), clock:
        for batch in some.split(BATCH):
            theirs(rows.item_seq[batch], rows.item_seq_len[batch])
    clock.notes = {"rows": len(some)}


def main() -> None:
    """Run the comparison that the command line asks for."""
    found = arguments(__doc__ or "", dataset="ml-1m", data_path="", share=1.0)
    settings = {"dataset": found.dataset}
    if found.data_path:
        settings["data_path"] = str(Path(found.data_path).resolve())
    ways = {
        "ours": partial(ours, settings=settings, share=found.share),
        "batch by batch": partial(batch_by_batch, settings=settings),
    }
    title = f"states of all training prefixes, {found.dataset}"
    print(side_by_side(title, ways, found.rounds, 10.0))


if __name__ == "__main__":
    main()
