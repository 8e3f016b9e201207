"""The memory of a retrieval-augmented model: training prefixes, their states, their next items.

Memory rows are the training rows sorted by user and, within a user, by time, so that what a query
must not find is always one range of places: the user's rows, or the later ones of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from recbole_ext.index.interface import evenly_spaced
from recbole_ext.modules.big_tensor import Room
from recbole_ext.modules.histories import Histories

if TYPE_CHECKING:
    from recbole_ext.index.interface import Index

POLICIES = ("user", "row_and_later")
ENCODE_ROWS = 4096
SORTED_ROWS = 1 << 20
"""Rows that are sorted by length at a time: in a mapped file their states are near each other."""
SEARCH_ROWS = 8192
CELLS = 1 << 25
"""Logits held at a time (128 MiB as float32); rows are taken in chunks of this area."""
CPU_CELLS = 1 << 21
"""The same on a CPU, where what fits its caches takes two thirds of the time."""
DRAW_CELLS = 1 << 20
"""Random places drawn at a time: a draw holds a dozen int64 of each."""
KEY_CELLS = 1 << 22
"""Numbers of random neighbours' states compared at a time (16 MiB, and a view's inner layer)."""


class MemoryRows:
    """What the memory is made of, before any encoding.

    Args:
        item_seq: Histories [R, L], padded with 0 on the right, or what stands for them; kept, not
            copied.
        item_seq_len: [R].
        targets: The item that followed [R].
        users: [R].
        times: When the targets were taken [R], in any unit; ``None``: in the order of the rows.

    Attributes:
        order: Row id at each place [R]: rows sorted by user, and by time within a user.
        place: Place of each row id [R].
        begin: First place of each user [U + 1]; a user's rows end where the next one's begin.
    """

    def __init__(
        self,
        item_seq: Tensor | Histories,
        item_seq_len: Tensor,
        targets: Tensor,
        users: Tensor,
        times: Tensor | None = None,
    ) -> None:
        self.item_seq = item_seq
        self.item_seq_len = item_seq_len
        self.times = times
        by_time = torch.arange(len(users)) if times is None else times.argsort(stable=True)  # [R]
        self.order = by_time[users[by_time].argsort(stable=True)]  # [R]
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(users))
        self.targets = targets[self.order]  # [R], by place
        self.users = users[self.order]  # [R], by place
        self.begin = torch.cat([users.new_zeros(1), torch.bincount(users).cumsum(0)])  # [U + 1]

    def __len__(self) -> int:
        return len(self.order)

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryRows:
        """Return the rows themselves: nothing changes them, and a copy would cost gigabytes."""
        return self

    @property
    def n_users(self) -> int:
        """Users that may have rows; an id from here on has none."""
        return len(self.begin) - 1

    def history(self, user: int) -> list[int]:
        """Return all that a user's last row knows, its target included; empty without rows."""
        if not 0 <= user < self.n_users or self.begin[user] == self.begin[user + 1]:
            return []
        place = int(self.begin[user + 1]) - 1
        row = int(self.order[place])
        prefix = self.item_seq[row, : int(self.item_seq_len[row])].tolist()
        return [*prefix, int(self.targets[place])]

    def extended(self, other: MemoryRows) -> MemoryRows:
        """Return these rows followed by ``other``'s; the ids of these rows stay."""
        mine, *columns = self.by_row_id()
        theirs, *others = other.by_row_id()
        times = None
        if self.times is not None and other.times is not None:
            times = torch.cat([self.times, other.times])  # [R + rows of other]
        item_seq = Histories.of(mine, self.item_seq_len).followed_by(
            Histories.of(theirs, other.item_seq_len)
        )
        item_seq_len, targets, users = map(torch.cat, zip(columns, others, strict=True))
        return MemoryRows(item_seq, item_seq_len, targets, users, times)

    def by_row_id(self) -> tuple[Tensor | Histories, Tensor, Tensor, Tensor]:
        """Return item_seq [R, L], item_seq_len, targets and users [R] in the order of row ids."""
        return self.item_seq, self.item_seq_len, self.targets[self.place], self.users[self.place]

    def excluded(self, policy: str, users: Tensor, row_id: Tensor | None = None) -> Tensor:
        """Return the range of places that each query must not find.

        Args:
            policy: ``user``: all rows of the query's user. ``row_and_later``: the query's own row
                and the user's later ones; a query that is no training row comes after all of them.
            users: User of each query [B]; ids beyond the memory's users have no rows.
            row_id: Row id of each query [B], negative where it is no training row, or ``None``.

        Returns:
            Half-open ranges [B, 2].
        """
        users = users.to(self.begin.device)
        start = self.begin[users.clamp_max(self.n_users)]  # [B]
        stop = self.begin[(users + 1).clamp_max(self.n_users)]  # [B]
        if policy == "row_and_later":
            start = stop
            if row_id is not None:
                row_id = row_id.to(self.place.device)
                start = torch.where(row_id < 0, stop, self.place[row_id.clamp_min(0)])
        return torch.stack([start, stop], dim=1)  # [B, 2]

    @torch.no_grad()
    def encode(
        self, encoder: Callable[[Tensor, Tensor], Tensor], device: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Encode all rows, rows of like length together; yields row ids [b] and states [b, D].

        The states are on ``device``. The batches depend on the rows alone, so equal weights give
        equal bits.
        """
        n_batches = math.ceil(len(self) / ENCODE_ROWS)
        for row_ids in _progress(self._by_length(), "states", n_batches):  # [b]
            lengths = self.item_seq_len[row_ids]  # [b]
            item_seq = self.item_seq[row_ids, : int(lengths.max())].to(device)  # [b, longest]
            yield row_ids, encoder(item_seq, lengths.to(device))  # [b], [b, D]

    def _by_length(self) -> Iterator[Tensor]:
        """Yield the row ids of batches [b] of like length."""
        for block in self.order.split(SORTED_ROWS):  # [rows]
            by_length = self.item_seq_len[block].argsort(stable=True)  # [rows]
            yield from block[by_length].split(ENCODE_ROWS)


@dataclass
class Memory:
    """Rows with the states and the search structure that certain weights gave them.

    Attributes:
        rows: What is remembered.
        states: Encoder states [R, D] by place; see :meth:`states_at`.
        view: Maps states [B, D] to the vectors that the index compares.
        index: Search structure over ``view(states)``; ``None`` draws neighbours at random.
        policy: What a query must not find.
        seed: Of the random neighbours.
        room: Where the table of neighbours finds place, as the states did.
        device: Where the queries are, and what is looked up goes; ``None``: where the states are.
        of_states: What was computed from the states alone; memories of equal states share it.
        of_rows: What was computed from the rows alone; memories of the same rows share it.

    Nothing here is computed in half precision, whatever autocast says: cosines of like states
    differ in the third decimal, which bfloat16 does not have.
    """

    rows: MemoryRows
    states: Tensor
    view: Callable[[Tensor], Tensor]
    index: Index | None
    policy: str = "user"
    seed: int = 0
    room: Room = field(default_factory=Room)
    device: Any = None
    of_states: dict[str, Tensor] = field(default_factory=dict)
    of_rows: dict[str, Tensor] = field(default_factory=dict)
    _cache: dict[str, Tensor] = field(default_factory=dict)
    _least: dict[tuple[float, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = self.states.device if self.device is None else self.device
        self.targets = self.rows.targets.to(self.device)  # [R], by place
        self.place = self.rows.place.to(self.device)  # [R], by row id

    def states_at(self, places: Tensor) -> Tensor:
        """Return the states [..., D] at places [...], from wherever they are kept."""
        return self.states[places.to(self.states.device)].to(self.device)

    def neighbours_at(self, places: Tensor, k: int) -> Tensor:
        """Return the places [B, K] of the neighbours of the rows at places [B]."""
        table = self.neighbours_of_rows(k)  # [R, K]
        return table[places.to(table.device)].to(self.device).long()

    @torch.no_grad()
    def search(
        self, states: Tensor, k: int, users: Tensor, row_id: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``(similarity, places)`` [B, K] of the neighbours that the policy allows.

        Args:
            states: Encoder states of the queries [B, D].
            k: K.
            users: [B].
            row_id: Row id of the queries that are training rows [B], negative for others.
        """
        with full_precision(states.device):
            if self.index is None:
                return self._search_random(states.float(), k, users, row_id)
            ranges = self.rows.excluded(self.policy, users, row_id).to(states.device)  # [B, 2]
            similarity, places = self.index.search(self.view(states.float()), k, ranges)
            return similarity.to(states.device), places.to(states.device)

    def _search_random(
        self, states: Tensor, k: int, users: Tensor, row_id: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        places = self._draw(k, users, row_id).to(states.device)  # [B, K]
        missing = places < 0  # [B, K]
        size = max(1, KEY_CELLS // (k * states.shape[1]))
        parts = zip(states.split(size), places.clamp_min(0).split(size), strict=True)
        similarity = torch.cat([self._cosine(*part) for part in parts])  # [B, K]
        return similarity.masked_fill(missing, float("-inf")), places

    def _cosine(self, states: Tensor, places: Tensor) -> Tensor:
        """Return the cosines [B, K] of states [B, D] and what is at places [B, K]."""
        query = F.normalize(self.view(states), dim=-1)  # [B, D]
        key = F.normalize(self.view(self.states_at(places)), dim=-1)  # [B, K, D]
        return torch.einsum("bd,bkd->bk", query, key)  # [B, K]

    def _draw(self, k: int, users: Tensor, row_id: Tensor | None) -> Tensor:
        """Draw the random neighbours of queries: places [B, K], -1 where there is none."""
        ranges = self.rows.excluded(self.policy, users, row_id)  # [B, 2]
        asked = users if row_id is None else torch.where(row_id < 0, users, row_id + (1 << 32))
        n_hidden = (ranges[:, 1:] - ranges[:, :1]).clamp_min(0)  # [B, 1]
        n_rows = len(self.rows) - n_hidden.squeeze(1)  # [B]
        places = random_places(asked.to(ranges.device), k, n_rows, self.seed)  # [B, K]
        past = places + n_hidden * (places >= ranges[:, :1])  # [B, K], past the excluded range
        return past.masked_fill(places < 0, -1)

    @torch.no_grad()
    def neighbours_of_rows(self, k: int) -> Tensor:
        """Return the places [R, K] of every memory row's neighbours, searched once and kept.

        int32: 4 R K bytes, 52 MB for Beauty and 392 MB for ml-1m with K = 100. Random neighbours
        do not depend on any weights: they are drawn once for all memories of the same rows.
        """
        is_random, name = self.index is None, f"neighbours {k}"
        kept = self.of_rows if is_random else self._cache
        if name not in kept:
            size = max(1, min(SEARCH_ROWS, DRAW_CELLS // k)) if is_random else SEARCH_ROWS
            table = self.room.empty((len(self.rows), k), torch.int32, self.device)  # [R, K]
            for begin in _progress(range(0, len(table), size), "neighbours"):
                places = torch.arange(begin, min(begin + size, len(table)))  # [b]
                table[begin : begin + size] = self._neighbours(places, k)
            kept[name] = table
        return kept[name]

    @torch.no_grad()
    def label_log_prob(self, item_weight: Tensor) -> Tensor:
        """Return log p(target | state) of every memory row [R] by place, computed once and kept.

        Args:
            item_weight: Item embeddings [N, D] that belong to the states; item 0 is padding.
        """
        if "log_prob" not in self.of_states:
            cells = CPU_CELLS if self.device.type == "cpu" else CELLS
            size = max(1, cells // len(item_weight))
            # one tensor and not a list of small ones: each would stand in the place that the last
            # logits left, so that the next did not fit there; where what is freed is kept
            # (malloc.py), every part would then need memory of its own
            found = torch.empty(len(self.targets), device=self.device)  # [R]
            parts = (tensor.split(size) for tensor in (found, self.states, self.targets))
            with full_precision(self.device):
                for out, states, targets in zip(*parts, strict=True):
                    logits = states.to(self.device) @ item_weight[1:].T  # [b, N - 1]
                    torch.neg(F.cross_entropy(logits, targets - 1, reduction="none"), out=out)
            self.of_states["log_prob"] = found
        return self.of_states["log_prob"]

    def similarity_percentile(self, percentile: float, k: int, sample: int = 4096) -> float:
        """Return a percentile of the similarity of training pairs, over evenly spaced rows.

        Measured once and kept, for it is asked for at every step.
        """
        if (percentile, k) not in self._least:
            places = evenly_spaced(len(self.rows), sample)  # [b]
            found = self._search_rows(places, k)[0].flatten()
            self._least[percentile, k] = _percentile(found[found > float("-inf")], percentile)
        return self._least[percentile, k]

    def _neighbours(self, places: Tensor, k: int) -> Tensor:
        """Return the places [b, K] of the neighbours of the rows at ``places`` [b]."""
        if self.index is None:  # what is drawn needs no comparing
            return self._draw(k, self.rows.users[places], self.rows.order[places])
        return self._search_rows(places, k)[1]

    def _search_rows(self, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        states = self.states_at(places)  # [b, D]
        return self.search(states, k, self.rows.users[places], self.rows.order[places])


def full_precision(device: torch.device) -> torch.autocast:
    """Return a context without autocast on a device."""
    return torch.autocast(device.type, enabled=False)


def _percentile(values: Tensor, percentile: float) -> float:
    """Return a percentile, interpolated linearly; ``Tensor.quantile`` ends at 2^24 values."""
    if not len(values):
        return float("-inf")
    place = (len(values) - 1) * percentile / 100
    low, high = (
        float(values.kthvalue(min(int(place) + n, len(values))).values) for n in (1, 2)
    )  # kthvalue counts from 1
    return low + (high - low) * (place - int(place))


def _progress(parts: Iterable[Any], what: str, n_parts: int | None = None) -> Iterable[Any]:
    """Show a bar on a terminal where it takes longer than a few seconds."""
    return tqdm(parts, f"memory, {what}", n_parts, delay=5, leave=False, disable=None)


def random_places(keys: Tensor, k: int, n_rows: Tensor, seed: int) -> Tensor:
    """Return K distinct pseudo-random places for each key, the same for a key in any batch.

    The rows are cut into K parts of like size, one place is drawn in each, and the parts are
    shuffled, so that every place is as likely in every slot.

    Args:
        keys: Numbers that name the queries [B].
        k: K.
        n_rows: Places that each query may draw from [B].
        seed: Another seed draws others.

    Returns:
        [B, K], each in 0..n_rows-1; -1 in the last slots of a key with fewer than K rows.
    """
    part = torch.arange(k + 1, device=keys.device)  # [K + 1]
    edge = part * n_rows[:, None] // k  # [B, K + 1]
    size = edge[:, 1:] - edge[:, :-1]  # [B, K]
    drawn = _hashed(keys, k, 2 * seed) % size.clamp_min(1)  # [B, K]
    places = torch.where(size > 0, edge[:, :-1] + drawn, -1)  # [B, K]
    order = _hashed(keys, k, 2 * seed + 1).masked_fill(size == 0, torch.iinfo(torch.int64).max)
    return places.gather(1, order.argsort(1))  # [B, K]


def _hashed(keys: Tensor, k: int, seed: int) -> Tensor:
    """Return a number from 0 for each key [B] and slot: [B, K].

    A multiplicative hash (Knuth, TAOCP 3, section 6.4) of key, slot and seed.
    """
    slots = torch.arange(k, device=keys.device)  # [K]
    mixed = (keys.long()[:, None] * 1_000_003 + slots) ^ (seed * 7_919)  # [B, K]
    for _ in range(3):  # 31-bit words, so that no product overflows
        mixed = ((mixed & 0x7FFFFFFF) * 1_103_515_245 + (mixed >> 31) + 12_345) & ((1 << 62) - 1)
        mixed = mixed ^ (mixed >> 29)
    return mixed >> 7  # [B, K]
