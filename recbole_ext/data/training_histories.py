"""What each user did in training, in external tokens: what texts about users are written from."""

from __future__ import annotations

from typing import Any

from recbole_ext.types import UserError


def training_histories(split: Any) -> dict[str, list[tuple[str, float]]]:
    """Return the events of the training split, which has none of validation and test.

    Times are RecBole's float32: seconds of today to a minute or two, as a batch has them.

    Args:
        split: ``dataset.build()[0]`` of a model whose rows are events, as BPR: with the same
            ``eval_args`` a sequential model trains on the same events.

    Returns:
        User token -> (item token, time) by time; every user of the dataset, if with no event.

    Raises:
        UserError: The rows are no events, or have no time.
    """
    if getattr(split, "item_list_length_field", None):
        raise UserError(
            "training histories come from events, and the rows of a sequential model are prefixes; "
            "build the dataset for BPR with the same eval_args"
        )
    if split.time_field is None or split.time_field not in split.inter_feat:
        raise UserError(
            f"the dataset has no time ({split.time_field}); a cut-off needs one: put it into "
            "load_col.inter and TIME_FIELD"
        )
    if split.config["normalize_all"] or split.time_field in (split.config["normalize_field"] or ()):
        raise UserError(
            f"'{split.time_field}' is scaled to [0, 1], which is no unit for a cut-off; set "
            "normalize_all: False and normalize_field: ~"
        )
    rows = split.inter_feat
    users = split.field2id_token[split.uid_field][rows[split.uid_field].numpy()]  # [events]
    items = split.field2id_token[split.iid_field][rows[split.iid_field].numpy()]  # [events]
    times = rows[split.time_field].tolist()
    found: dict[str, list[tuple[str, float]]] = {
        str(user): [] for user in split.field2id_token[split.uid_field][1:]
    }
    for user, item, time in zip(users, items, times, strict=True):
        found[str(user)].append((str(item), time))
    for events in found.values():
        events.sort(key=lambda event: event[1])
    return found
