"""Rows of a dataset: RecBole's ``Interaction``, indexed without a detour, and one of histories."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_ext.modules.histories import Histories, Windows, gathered


class Rows(Interaction):
    """``Interaction`` that does not turn an index into a list of numbers and back, per field."""

    def __getitem__(self, index: Any) -> Any:
        """Return a field by name, or some rows by whatever RecBole takes."""
        if isinstance(index, str):
            return self.interaction[index]
        index = as_index(index)
        return Rows({field: value[index] for field, value in self.interaction.items()})


class Targets:
    """A column of the rows' targets, which stand in ``values`` [M + 1] behind their histories."""

    def __init__(self, values: Tensor, windows: Windows) -> None:
        self.values = values
        self.windows = windows

    def table(self) -> Tensor:
        """Return the column, [R, ...]."""
        return self.values[self.windows.stop]


class Lengths(Targets):
    """The column of the histories' lengths; of ``values`` nothing is read."""

    def table(self) -> Tensor:
        """Return the column, [R]."""
        return self.windows.length


Field = Tensor | Histories | Targets


class Fields(UserDict, dict):  # type: ignore[misc]
    """Fields by name; one that is kept as offsets becomes a tensor when it is looked up.

    It is a ``dict`` because ``Interaction`` takes no other mapping; all stands in ``data``.
    """

    def __getitem__(self, field: str) -> Tensor:
        value = self.data[field]
        if not isinstance(value, Tensor):
            value = self.data[field] = value.table()  # [R, ...] or [R, L, ...]
        return value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Fields, (self.data,)  # a dict would be copied and pickled by its items: as tables


class PrefixRows(Interaction):
    """Rows of a sequential dataset, kept as offsets until somebody reads them.

    Some rows, which is what a loader takes, are an ordinary ``Interaction`` and a copy, also where
    they are a slice. A field that is looked up as a whole becomes a tensor and stays one, of [R, L]
    for a history; :meth:`histories` avoids that.

    Args:
        fields: Tensors of R rows, and what is kept as offsets in ``windows``.
        windows: Where the history of each row stands [R].
    """

    def __init__(self, fields: dict[str, Field], windows: Windows) -> None:
        self.interaction = Fields(fields)
        self.windows = windows
        self.length = len(windows)

    def __getitem__(self, index: Any) -> Any:
        """Return a field by name, or some rows by whatever RecBole takes."""
        if isinstance(index, str):
            return self.interaction[index]
        index = as_index(index)
        windows = self.windows.take(index)
        places: Tensor | None = None
        fields = {}
        for field, value in self._kept().items():
            if isinstance(value, Histories):
                if places is None:  # those of all histories
                    places = windows.places(..., len(value.values) - 1)  # [B, L]
                fields[field] = gathered(value.values, places)  # [B, L, ...]
            else:
                value = _taken(value, index, windows)
                fields[field] = value if isinstance(value, Tensor) else value.table()  # [B, ...]
        return Interaction(fields)

    def __str__(self) -> str:
        """Return what RecBole says of such rows, for which no table is made."""
        shown = {}
        for field, none in self[:0].interaction.items():  # [0, ...]
            cell = none.new_empty(none.shape[1:])  # [...]
            shown[field] = cell.expand(len(self), *cell.shape)  # [R, ...]
        return str(Interaction(shown))

    def histories(self, field: str) -> Histories | Tensor:
        """Return a history field as it is kept: offsets, or a table [R, L] if it became one."""
        return self._kept()[field]

    def part(self, index: Any) -> PrefixRows:
        """Return some rows, as offsets still."""
        index = as_index(index)
        windows = self.windows.take(index)
        fields = {field: _taken(value, index, windows) for field, value in self._kept().items()}
        return PrefixRows(fields, windows)

    def _reindex(self, index: Any) -> None:
        """Put the rows into another order; ``sort`` and ``shuffle`` call it."""
        rows = self.part(index)
        self.interaction, self.windows = rows.interaction, rows.windows

    def _kept(self) -> Any:
        # add_prefix puts a dict of tensors in the place of ours
        return getattr(self.interaction, "data", self.interaction)


class UnsplitRows(PrefixRows):
    """The rows before they are split: some of them are a split, whose histories stay offsets."""

    def __getitem__(self, index: Any) -> Any:
        """Return a field by name, or some rows."""
        return super().__getitem__(index) if isinstance(index, str) else self.part(index)


def histories_of(rows: Any, field: str) -> Histories | Tensor:
    """Return a history field of a split's rows, as offsets where it is kept so; [R, L]."""
    return rows.histories(field) if isinstance(rows, PrefixRows) else rows[field]


def _taken(value: Field, index: Any, windows: Windows) -> Field:
    """Return some rows of a field; ``windows`` are theirs."""
    return value[index] if isinstance(value, Tensor) else type(value)(value.values, windows)


def as_index(index: Any) -> Any:
    """Return an index for torch that stands for the same rows as ``index`` does for RecBole.

    RecBole makes a list of numbers of every array; where that means something else, a list it is.
    """
    if isinstance(index, (list, range)):
        index = np.asarray(index)
    if isinstance(index, np.ndarray):
        if index.size == 0 or index.dtype not in (np.int64, np.bool_):
            return index.tolist()
        return torch.from_numpy(np.ascontiguousarray(index))
    if isinstance(index, Tensor) and index.dtype not in (torch.int64, torch.bool):
        return index.tolist()
    return index
