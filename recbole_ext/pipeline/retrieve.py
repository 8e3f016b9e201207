"""Stage one: the best items of every user by a trained model, of RecBole or of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType

from recbole_ext.data.feature_origin import file_digest
from recbole_ext.data.history import History
from recbole_ext.data.scoring import users_at_a_time
from recbole_ext.evaluation.all_items import all_scores
from recbole_ext.modules.top import top_items
from recbole_ext.pipeline.candidates import Candidates
from recbole_ext.pipeline.manifest import Manifest
from recbole_ext.quick_start import Run, load_run
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError, suggest

HISTORIES = ("mask", "keep")
PHASES = {"valid": 1, "test": 2}
FULL_RANKING = {
    "eval_args": {"mode": "full"},
    "metrics": ["Recall"],
    "topk": [1],
    "valid_metric": "Recall@1",
    "mask_history": False,
}
"""Lets a run of any evaluation be loaded: all items are ranked, and the history is masked here."""


@dataclass(frozen=True)
class Askers:
    """Whom a split asks about.

    Attributes:
        users: Their ids, [U].
        targets: The items that each took in this split.
        histories: The items that each took before it, the oldest first.
        interaction: Rows of this split [U] -> what the model scores.
    """

    users: np.ndarray
    targets: Sequence[np.ndarray]
    histories: Sequence[np.ndarray]
    interaction: Callable[[np.ndarray], Any]


def check_history(history: str) -> None:
    """Refuse what is no policy.

    Raises:
        UserError: With the policies.
    """
    if history not in HISTORIES:
        raise UserError(
            f"history takes mask or keep, not '{history}'{suggest(str(history), HISTORIES)}"
        )


def retrieve(folder: str | Path, k: int, splits: Sequence[str], history: str | None) -> Candidates:
    """Return the ``k`` best items of every user.

    Args:
        folder: Run folder of any model.
        k: Candidates of each user; fewer where masking leaves fewer.
        splits: ``valid``, ``test`` or both.
        history: ``mask`` or ``keep``; as the run was evaluated by default.

    Raises:
        UserError: No such run, ``k`` is beyond the catalogue, or a split is empty.
    """
    run = load_run(folder, FULL_RANKING)
    n_items = run.dataset.item_num - 1
    if k > n_items:
        raise UserError(
            f"k: {k} candidates are more than the {n_items} items of {run.config['dataset']}; "
            f"give --k={n_items} or less"
        )
    own = read_yaml(Path(folder) / "config.yaml")
    history = history or ("mask" if own["mask_history"] else "keep")
    made = {
        "model": run.config["model"],
        "folder": str(Path(folder).resolve()),
        "checkpoint": file_digest(Path(folder) / "best.pt"),
    }
    manifest = Manifest(
        dataset=run.config["dataset"],
        fingerprint=run.dataset.fingerprint,
        vocabulary=run.vocabulary,
        n_users=run.dataset.user_num - 1,
        n_items=n_items,
        splits={},
        k=k,
        history=history,
        retriever=made,
        config=own,
        seed=run.config["seed"],
    )
    found = {split: _top(run, split, k, history == "mask") for split in splits}
    return Candidates(manifest, found)


def _top(run: Run, split: str, k: int, is_masked: bool) -> RerankBatch:
    askers = askers_of(run, split)
    items = run.dataset.get_item_feature()
    step = users_at_a_time(run.config, run.dataset.item_num)
    candidates, scores = [], []
    for begin in range(0, len(askers.users), step):
        rows = np.arange(begin, min(begin + step, len(askers.users)))  # [B]
        interaction = askers.interaction(rows).to(run.config["device"])
        found = all_scores(run.model, interaction, items, run.config["eval_batch_size"])
        found = found.float().cpu()  # [B, N]
        found[:, 0] = -torch.inf  # the padding
        if is_masked:
            histories = askers.histories[begin : begin + step]
            lengths = torch.tensor([len(history) for history in histories])  # [B]
            had = np.concatenate(histories)  # [events]
            found[torch.arange(len(rows)).repeat_interleave(lengths), had] = -torch.inf
        best = top_items(found, k)  # [B, K]
        values = found.gather(1, best)  # [B, K]
        if values.isnan().any():
            raise UserError(
                "the model's scores are not numbers (NaN): its training has diverged; train anew "
                "with a lower learning_rate"
            )
        for row, ids in zip(values, best, strict=True):
            n = int((row > -torch.inf).sum())  # masking may leave fewer than k
            scores.append(row[:n].tolist())
            candidates.append(ids[:n].numpy())
    return _by_token(run, askers, candidates, scores)


def _by_token(
    run: Run, askers: Askers, candidates: Sequence[np.ndarray], scores: Sequence[list[float]]
) -> RerankBatch:
    dataset = run.dataset
    items = np.asarray(dataset.field2id_token[dataset.iid_field], dtype=object)  # [N]
    users = np.asarray(dataset.field2id_token[dataset.uid_field], dtype=object)  # [users]

    def named(rows: Sequence[np.ndarray]) -> list[list[str]]:
        return [items[row].tolist() for row in rows]

    return RerankBatch(
        users=users[askers.users].tolist(),
        histories=named(askers.histories),
        candidates=named(candidates),
        scores=padded(scores),
        targets=named(askers.targets),
    )


def askers_of(run: Run, split: str) -> Askers:
    """Return the users of a split with what they took in it and before it.

    A user of a sequential model with several rows in a split is asked for once, at its beginning.

    Raises:
        UserError: The split is empty, or its histories are not known.
    """
    built = [loader._dataset for loader in (run.train_data, run.valid_data, run.test_data)]
    part = built[PHASES[split]]
    rows, uid, iid = part.inter_feat, part.uid_field, part.iid_field
    if len(rows) == 0:
        raise UserError(
            f"{run.config['dataset']} has no {split} split (eval_args.split); leave it out of "
            "--split"
        )
    if run.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        if run.config["benchmark_filename"] is not None:
            raise UserError(
                "candidates of a sequential model need the histories, which files that are split "
                "already (benchmark_filename) do not hold; take a run on the whole data"
            )
        users, first = np.unique(rows[uid].numpy(), return_index=True)  # [U] each
        before = History.before(built, PHASES[split])
        loader = run.valid_data if split == "valid" else run.test_data

        def interaction(index: np.ndarray) -> Any:
            return loader.transform(part, rows[torch.from_numpy(first[index])])

        targets = _grouped(rows[uid].numpy(), rows[iid].numpy(), users)
        return Askers(users, targets, [before.of(user) for user in users], interaction)
    return _general(built, PHASES[split])


def _general(built: Sequence[Any], phase: int) -> Askers:
    part = built[phase]
    took, items = _events([part])
    users = np.unique(took)  # [U]
    joined = part.join(Interaction({part.uid_field: torch.from_numpy(users)}))

    def interaction(index: np.ndarray) -> Any:
        return joined[torch.from_numpy(index)]

    histories = _grouped(*_events(built[:phase]), users, is_once=False)
    return Askers(users, _grouped(took, items, users), histories, interaction)


def _events(parts: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return user and item of each event of some splits, by time where it is known; no dislikes."""
    one = parts[0]
    fields = [one.uid_field, one.iid_field, one.label_field, one.time_field]
    user, item, label, time = (
        np.concatenate([part.inter_feat[field].numpy() for part in parts])  # [events]
        if field in one.inter_feat
        else None
        for field in fields
    )
    assert user is not None and item is not None
    order = np.arange(len(user)) if time is None else np.argsort(time, kind="stable")  # [events]
    if label is not None:
        order = order[label[order] > 0]
    return user[order], item[order]


def _grouped(
    users: np.ndarray, items: np.ndarray, wanted: np.ndarray, is_once: bool = True
) -> list[np.ndarray]:
    """Return the items of each wanted user in their order; each once if ``is_once``."""
    history = History(users, items, int(max(users.max(initial=0), wanted.max(initial=0))) + 1)
    rows = [history.of(user) for user in wanted]
    if is_once:
        rows = [row[np.sort(np.unique(row, return_index=True)[1])] for row in rows]
    return rows
