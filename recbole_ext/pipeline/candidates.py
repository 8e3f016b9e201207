"""The file between the stages: ``candidates.parquet``, by external tokens, beside a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recbole_ext.atomic import replacing
from recbole_ext.data.feature_origin import file_digest
from recbole_ext.pipeline.manifest import NAME, Manifest, read_manifest
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.run_folder import versions
from recbole_ext.types import UserError, suggest

FILE = "candidates.parquet"
TOKENS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("split", pa.string()),
        ("targets", TOKENS),
        ("cand_id", TOKENS),
        ("cand_score", pa.list_(pa.float32())),
        ("hist_id", TOKENS),
    ]
)
"""A row per (split, user); candidates stand best first, histories oldest first."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of a dataset's users.

    Attributes:
        manifest: What they are.
        splits: Split -> a row per user, with targets.
    """

    manifest: Manifest
    splits: Mapping[str, RerankBatch]

    def split(self, name: str) -> RerankBatch:
        """Return the rows of a split.

        Raises:
            UserError: These candidates have none of it.
        """
        if name not in self.splits:
            raise UserError(
                f"these candidates are of {' and '.join(self.splits)}, not of '{name}'"
                f"{suggest(name, self.splits)}; make them with --split={name}"
            )
        return self.splits[name]


def write_candidates(folder: Path, candidates: Candidates) -> Manifest:
    """Write the two files into a folder that is there; the manifest last.

    Returns:
        The manifest as it is written, with the file's digest.
    """
    tables = [table_of(name, rows) for name, rows in candidates.splits.items()]
    with replacing(folder / FILE) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
    sizes = {name: len(rows) for name, rows in candidates.splits.items()}
    digest = file_digest(folder / FILE)
    manifest = replace(
        candidates.manifest, splits=sizes, digest=digest, versions=versions(), k=_most(candidates)
    )
    manifest.write(folder)
    return manifest


def _most(candidates: Candidates) -> int:
    return max((r.scores.shape[1] for r in candidates.splits.values()), default=0)


def read_candidates(folder: str | Path, fingerprint: str | None = None) -> Candidates:
    """Read a folder of candidates.

    Args:
        folder: As :func:`write_candidates` fills it.
        fingerprint: Of the dataset that they are for, where one is known.

    Raises:
        UserError: It holds none, they are damaged, or of another dataset.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    path = folder / FILE
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise UserError(
            f"{folder} has candidates of other data ('{manifest.dataset}', fingerprint "
            f"{manifest.fingerprint[:12]}, not {fingerprint[:12]}); make them anew from a run on "
            "the data that are meant"
        )
    try:
        if file_digest(path) != manifest.digest:
            raise ValueError(f"its bytes are not those that {NAME} names")
        table = pq.read_table(path)
        if not table.schema.equals(SCHEMA):
            raise ValueError("it has other columns")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is damaged or missing ({error}); make the candidates anew with recbole-ext "
            "candidates"
        ) from error
    return Candidates(manifest, {name: rows_of(table, name) for name in manifest.splits})


def table_of(split: str, rows: RerankBatch) -> pa.Table:
    """Return the rows of a split as a table of :data:`SCHEMA`."""
    scores = [
        row[: len(items)] for row, items in zip(rows.scores.tolist(), rows.candidates, strict=True)
    ]
    columns = {
        "user": rows.users,
        "split": [split] * len(rows),
        "targets": rows.targets,
        "cand_id": rows.candidates,
        "cand_score": scores,
        "hist_id": rows.histories,
    }
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def rows_of(table: pa.Table, split: str) -> RerankBatch:
    """Return the rows of a split of a table of :data:`SCHEMA`."""
    mine = table.filter(pa.compute.equal(table["split"], split))
    columns: dict[str, Sequence] = {name: mine[name].to_pylist() for name in SCHEMA.names}
    return RerankBatch(
        users=columns["user"],
        histories=columns["hist_id"],
        candidates=columns["cand_id"],
        scores=padded(columns["cand_score"]),
        targets=columns["targets"],
    )
