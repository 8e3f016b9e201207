"""Builds memories from weights, and keeps the two in use: that of training and that of scoring.

A memory is a function of the encoder's and the retriever's weights. Scoring always takes the
memory of the current weights: whatever moved them (an optimizer, a loaded checkpoint, a hand) is
noticed by comparing. Training takes the memory of a snapshot, which only a refresh renews, so that
neighbours are searched once and not at every step; the snapshot is saved with the model, hence a
resumed run rebuilds the very memory that the interrupted one had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recbole_ext.index.brute_force import BruteForceIndex
from recbole_ext.index.build import build_index, recall
from recbole_ext.index.interface import evenly_spaced, unit_rows
from recbole_ext.modules.big_tensor import Room
from recbole_ext.modules.evaluating import evaluating
from recbole_ext.modules.memory import Memory, MemoryRows, full_precision

RECALL_ROWS = 1000
"""Memory rows whose neighbours are searched exactly too, to measure an approximate index."""
PART_ROWS = 1 << 16
"""Rows that are read from one big tensor and written to another at a time."""

Weights = dict[str, dict[str, Tensor]]


class MemoryKeeper:
    """Keeps memories over the same rows.

    Args:
        rows: What is remembered.
        encoder: ``(item_seq [B, L], item_seq_len [B]) -> [B, D]``.
        view: Maps states [..., D] to the space of retrieval [..., D].
        snapshot_encoder: Whether the snapshot holds the encoder too; needed where it trains.
        index_kind: See :func:`~recbole_ext.index.build.build_index`; ``None`` for random
            neighbours.
        n_probe: Lists that an IVF search visits.
        policy: What a query must not find.
        seed: Of random neighbours.
        room: Where the states, the tables of neighbours and, while an index is built, its vectors
            find place; those of all memories together.

    Attributes:
        report: What the last build cost and found: rows, seconds, bytes, recall of the index.
    """

    def __init__(
        self,
        rows: MemoryRows,
        encoder: nn.Module,
        view: nn.Module,
        *,
        snapshot_encoder: bool,
        index_kind: str | None = "auto",
        n_probe: int = 16,
        policy: str = "user",
        seed: int = 0,
        room: Room | None = None,
    ) -> None:
        self.rows = rows
        self.room = Room() if room is None else room
        self._parts = [rows]  # as they were added; each is encoded by itself
        self._known: tuple[dict[str, Tensor], Tensor, Tensor] | None = None
        self._of_rows: dict[str, Tensor] = {}
        self.modules = {"encoder": encoder, "view": view}
        self.snapshot_encoder = snapshot_encoder
        self.index_kind = index_kind
        self.n_probe = n_probe
        self.policy = policy
        self.seed = seed
        self.report: dict[str, Any] = {}
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memories out of copies and pickles: they are rebuilt from the weights."""
        forgotten = {"_scoring": None, "_training": None, "_training_key": None, "_known": None}
        return {**self.__dict__, **forgotten, "_of_rows": {}, "_watched": []}

    def forget(self) -> None:
        """Drop the memories; the next use rebuilds them."""
        self._scoring: tuple[Weights, Memory] | None = None
        self._training: tuple[Weights, Memory] | None = None
        self._training_key: tuple | None = None
        self._watched: list[Tensor] = []

    def extend(self, rows: MemoryRows) -> None:
        """Add rows; those that are there keep their ids, and their states are taken over."""
        if self._scoring is not None:
            weights, memory = self._scoring
            self._known = weights["encoder"], memory.states, self.rows.order
        self.rows = self.rows.extended(rows)
        self._parts, self._of_rows = [*self._parts, rows], {}
        self.forget()

    def snapshot(self) -> Tensor:
        """Return a copy of the weights that a later rebuild of today's memory needs, flat."""
        flat = [value.flatten() for part in self._snapshot_parts() for value in part.values()]
        return torch.cat(flat).clone() if flat else torch.zeros(0)

    def scoring(self) -> Memory:
        """Return the memory of the current weights."""
        current = self._current()
        entry = self._found(current)
        if entry is None:
            known = self._states_of(current)
            self._scoring = None  # its index gives way before there is another
            entry = self._built(current, known)
        self._scoring = entry
        return entry[1]

    def training(self, snapshot: Tensor) -> Memory:
        """Return the memory of a snapshot.

        Args:
            snapshot: What :meth:`snapshot` gave. Its version counter says whether it changed, which
                costs nothing per step, unlike comparing weights.
        """
        watched = [
            snapshot,
            *([] if self.snapshot_encoder else self.modules["encoder"].parameters()),
        ]
        key = tuple((tensor.data_ptr(), tensor._version) for tensor in watched)
        if self._training is None or key != self._training_key:
            weights = self._restored(snapshot)
            entry = self._found(weights)
            if entry is None:
                known = self._states_of(weights)
                self._training = None  # as above
                entry = self._built(weights, known)
            self._training, self._training_key = entry, key
            self._watched = watched  # kept: no other tensor can take the address that is in the key
        return self._training[1]

    def _current(self) -> Weights:
        return {name: _weights(module) for name, module in self.modules.items()}

    def _snapshot_parts(self) -> list[dict[str, Tensor]]:
        current = self._current()
        return [current["view"], *([current["encoder"]] if self.snapshot_encoder else [])]

    def _restored(self, snapshot: Tensor) -> Weights:
        current, place = self._current(), 0
        for part in ["view", *(["encoder"] if self.snapshot_encoder else [])]:
            for name, value in current[part].items():
                current[part][name] = snapshot[place : place + value.numel()].view_as(value)
                place += value.numel()
        return current

    def _there(self) -> list[tuple[Weights, Memory]]:
        return [entry for entry in (self._scoring, self._training) if entry is not None]

    def _found(self, weights: Weights) -> tuple[Weights, Memory] | None:
        """Return the memory of ``weights`` where it is there."""
        for entry in self._there():
            if all(_same(entry[0][part], weights[part]) for part in weights):
                return entry
        return None

    def _states_of(self, weights: Weights) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return the states of a memory of the same encoder, and what follows from them alone."""
        for held, memory in self._there():
            if _same(held["encoder"], weights["encoder"]):
                return memory.states, memory.of_states
        return None

    @torch.no_grad()
    def _built(
        self, weights: Weights, known: tuple[Tensor, dict[str, Tensor]] | None
    ) -> tuple[Weights, Memory]:
        """Build a memory, from states that are known where there are such."""
        weights = {part: {n: v.clone() for n, v in held.items()} for part, held in weights.items()}
        states = self._encode(weights["encoder"]) if known is None else known[0]  # [R, D]
        device, began = next(self.modules["encoder"].parameters()).device, time.perf_counter()
        view = _bound(self.modules["view"], weights["view"])
        index = None
        if self.index_kind is not None:
            with full_precision(device):
                vectors = self._seen(view, states, device)  # [R, D]
                index = build_index(vectors, self.index_kind, self.n_probe)
                del vectors  # the index has a copy
        memory = Memory(self.rows, states, view, index, self.policy, self.seed, self.room, device)
        memory.of_rows = self._of_rows
        if known is not None:
            memory.of_states = known[1]
        self.report.update(
            rows=len(self.rows),
            index="random" if index is None else getattr(index, "kind", "brute_force"),
            index_seconds=time.perf_counter() - began,
            states_mib=states.nbytes / 2**20,
        )
        return weights, memory

    def _encode(self, weights: dict[str, Tensor]) -> Tensor:
        """Encode all rows [R, D] by place, but for those whose states are known."""
        encoder, began = self.modules["encoder"], time.perf_counter()
        device, states = next(encoder.parameters()).device, None
        # states are without dropout, whatever training does
        with evaluating(encoder), full_precision(device):
            for row_ids, found in self._batches(weights, device):  # [b], [b, D]
                if states is None:
                    states = self.room.empty((len(self.rows), found.shape[1]), device=device)
                places = self.rows.place[row_ids].to(states.device)  # [b]
                states[places] = found.to(states.device)
        assert states is not None, "a memory has rows"
        self.report["encode_seconds"] = time.perf_counter() - began
        return states

    def _batches(self, weights: dict[str, Tensor], device: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield row ids [b] and states [b, D] of all rows, those that are known as they are.

        Part by part, so that it makes no difference to a bit whether the first part was known.
        """
        known, self._known, n_known = self._known, None, 0
        if known is not None and _same(known[0], weights):
            _, states, order = known  # [rows, D] by place, [rows]
            yield from zip(order.split(PART_ROWS), states.split(PART_ROWS), strict=True)
            n_known = len(order)
        encoder = _bound(self.modules["encoder"], weights)
        begins = accumulate((len(part) for part in self._parts), initial=0)
        for part, begin in zip(self._parts, begins, strict=False):
            if begin >= n_known:
                for row_ids, found in part.encode(encoder, device):  # [b], [b, D]
                    yield row_ids + begin, found

    def _seen(self, view: Callable[[Tensor], Tensor], states: Tensor, device: Any) -> Tensor:
        """Apply ``view`` to states [R, D] a part at a time: its inner layer is wider than D."""
        # an index on a GPU is as large as they are and no file can hold it, so they stay there too
        is_cpu = states.device.type == "cpu"
        seen = self.room.empty(states.shape) if is_cpu else torch.empty_like(states)  # [R, D]
        for out, part in zip(seen.split(PART_ROWS), states.split(PART_ROWS), strict=True):
            out.copy_(view(part.to(device)))
        return seen

    def measure_recall(self, k: int) -> float:
        """Return the recall@K of the scoring index against exact search; the report has it too."""
        memory = self.scoring()
        if memory.index is None or self.report["index"] in ("brute_force", "exact"):
            return 1.0
        places = evenly_spaced(len(self.rows), RECALL_ROWS)  # [b]
        keys = self._seen(lambda part: unit_rows(memory.view(part)), memory.states, memory.device)
        exact = BruteForceIndex.of_unit_rows(keys)
        ranges = self.rows.excluded(self.policy, self.rows.users[places], self.rows.order[places])
        queries = memory.view(memory.states_at(places))  # [b, D]
        self.report["recall"] = recall(memory.index, exact, queries, k, ranges)
        return self.report["recall"]


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return all(
        value.device == theirs[name].device and torch.equal(value, theirs[name])
        for name, value in mine.items()
    )


def _bound(module: nn.Module, weights: dict[str, Tensor]) -> Callable[..., Tensor]:
    """Return the module as a function that has these weights for good."""
    return lambda *inputs: functional_call(module, weights, inputs)
