"""What a run writes as it goes: ``metrics.jsonl``, a line per epoch, and ``curves.png``."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from recbole_ext.atomic import replacing
from recbole_ext.types import UserError

_KEYS = {"epoch", "losses", "train_seconds", "valid_seconds", "valid"}
"""What a record has, ``None`` where there was no validation."""


class RunLog:
    """The epoch records of a run folder.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.curves = folder / "curves.png"

    def rewind(self, epoch: int) -> None:
        """Drop the records after ``epoch``, and a torn last line: they will be written again."""
        if not self.path.is_file():
            return
        kept = [json.dumps(record) + "\n" for record in self.read() if record["epoch"] <= epoch]
        if len(kept) <= epoch:
            logging.getLogger().warning(
                "%s has records of %d of %d epochs: the others were trained, but curves and "
                "reports cannot show them",
                *(self.path, len(kept), epoch + 1),
            )
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on the disk before a checkpoint says that the epoch is done."""
        try:
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.path}: {error.strerror}; free space and continue with "
                f"--resume={self.path.parent}"
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Return the records; a last line that was cut short is left out.

        Raises:
            UserError: Another line is no record.
        """
        if not self.path.is_file():
            return []
        records = []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                is_one = isinstance(record, dict) and record.keys() >= _KEYS
            except json.JSONDecodeError:
                if number == len(lines) and not line.endswith("\n"):
                    break
                is_one = False
            if not is_one:
                raise UserError(f"{self.path}, line {number}, is no epoch record") from None
            records.append(record)
        return records

    def draw(self, valid_metric: str) -> None:
        """Draw the losses and the validation metric by epoch into ``curves.png``."""
        records = self.read()
        if not records:
            return
        from matplotlib.figure import Figure  # costs half a second: only where it is used

        figure = Figure(figsize=(9, 3.5), layout="constrained")
        loss_axes, valid_axes = figure.subplots(1, 2)
        for name in records[0]["losses"]:
            points = [(r["epoch"], r["losses"][name]) for r in records if name in r["losses"]]
            loss_axes.plot(*zip(*points, strict=True), marker=".", label=name)
        points = [
            (r["epoch"], r["valid"][valid_metric])
            for r in records
            if valid_metric in (r["valid"] or {})
        ]
        if points:
            valid_axes.plot(
                *zip(*points, strict=True), marker=".", color="tab:green", label=valid_metric
            )
            valid_axes.legend()
        loss_axes.set(xlabel="epoch", ylabel="training loss, mean of batches")
        valid_axes.set(xlabel="epoch", ylabel=f"validation {valid_metric}")
        loss_axes.legend()
        with replacing(self.curves) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
