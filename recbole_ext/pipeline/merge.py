"""Candidates of several retrievers as one list for each user."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recbole_ext.compare.split import how_split
from recbole_ext.pipeline.candidates import Candidates
from recbole_ext.pipeline.manifest import Manifest
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.types import UserError, suggest

RRF_CONSTANT = 60
"""Of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""
WAYS = ("union", "quota", "rrf")

Lists = Sequence[Sequence[str]]
Scored = list[tuple[str, float]]


def rrf(lists: Lists) -> Scored:
    """Score an item by the sum of 1 / (60 + its rank) over the lists that have it; best first."""
    scores: dict[str, float] = {}
    for one in lists:
        for rank, item in enumerate(one, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (RRF_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def in_turns(lists: Lists, quotas: Sequence[int] | None = None) -> Scored:
    """Take the next item that is not there yet of each list in turn; scores are 1 / place.

    Args:
        lists: The best item of each first.
        quotas: Items that each list gives at most; all of them by default.
    """
    left = list(quotas) if quotas else [len(one) for one in lists]
    found: dict[str, None] = {}
    queues = [iter(one) for one in lists]
    while any(left):
        for number, queue in enumerate(queues):
            if not left[number]:
                continue
            item = next((one for one in queue if one not in found), None)
            left[number] = 0 if item is None else left[number] - 1
            if item is not None:
                found[item] = None
    return [(item, 1 / place) for place, item in enumerate(found, 1)]


def merge(
    sources: Sequence[Candidates],
    way: str,
    quotas: Sequence[int] | None = None,
    k: int | None = None,
    names: Sequence[str] = ("valid", "test"),
) -> Candidates:
    """Return the candidates of several retrievers together.

    Args:
        sources: Of one dataset, with the same splits of it.
        way: ``union`` (in turns), ``quota`` (in turns, so many of each) or ``rrf``.
        quotas: For ``quota``, one for each source.
        k: Candidates of a user at most; all by default.
        names: Splits that are wanted, of those that all sources have.

    Raises:
        UserError: The sources do not fit together, or the way does not fit them.
    """
    if way not in WAYS:
        raise UserError(f"--merge takes {', '.join(WAYS)}, not '{way}'{suggest(way, WAYS)}")
    if len(sources) < 2:
        raise UserError("a merge takes two or more folders of candidates: --from=a,b")
    if (way == "quota") != bool(quotas) or (quotas and len(quotas) != len(sources)):
        raise UserError(
            f"--merge=quota takes --quota with a number for each of the {len(sources)} folders, as "
            f"in --quota={','.join(['100'] * len(sources))}, and the other ways take none"
        )
    manifest = _common([source.manifest for source in sources], way)
    splits = [name for name in names if all(name in one.splits for one in sources)]
    if not splits:
        raise UserError(
            f"the folders to be merged have no split in common of {', '.join(names)}; make them "
            "with one"
        )

    def fuse(lists: Lists) -> Scored:
        return (rrf(lists) if way == "rrf" else in_turns(lists, quotas))[:k]

    return Candidates(
        manifest, {name: _rows([one.splits[name] for one in sources], fuse) for name in splits}
    )


def _common(manifests: Sequence[Manifest], way: str) -> Manifest:
    first = manifests[0]
    for other in manifests[1:]:
        for key in ("dataset", "eval_args", "history", "fingerprint"):
            ours, theirs = (_value(key, one) for one in (first, other))
            if ours != theirs:
                raise UserError(
                    f"candidates of {first.name} have the {key} {ours}, those of {other.name} "
                    f"{theirs}, so they answer other questions; make both alike, from runs on the "
                    "same data with the same eval_args (and seed, where their order is RO)"
                )
    made = {"merge": way, "of": [one.retriever for one in manifests]}
    return Manifest(**{**vars(first), "retriever": made, "digest": ""})


def _value(key: str, manifest: Manifest) -> object:
    if key == "eval_args":  # how the data are split; how a run ranked them is nothing to us
        return how_split(manifest.config)
    value = getattr(manifest, key)
    return value[:12] if key == "fingerprint" else value


def _rows(parts: Sequence[RerankBatch], fuse: Callable[[Lists], Scored]) -> RerankBatch:
    """Return the users that any source has, in the order of the first that has them."""
    where = [{user: row for row, user in enumerate(part.users)} for part in parts]
    users = list(dict.fromkeys(user for part in parts for user in part.users))
    histories, targets, candidates, scores = [], [], [], []
    for user in users:
        mine = [(part, rows[user]) for part, rows in zip(parts, where, strict=True) if user in rows]
        part, row = mine[0]
        assert part.targets is not None
        histories.append(part.histories[row])
        targets.append(part.targets[row])
        lists = [
            part.candidates[rows[user]] if user in rows else ()
            for part, rows in zip(parts, where, strict=True)
        ]
        fused = fuse(lists)
        candidates.append([item for item, _ in fused])
        scores.append([score for _, score in fused])
    return RerankBatch(users, histories, candidates, padded(scores), targets=targets)
