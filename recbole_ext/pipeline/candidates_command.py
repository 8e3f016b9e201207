"""``recbole-ext candidates``: from a run, from other candidates, or from a run of TREC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_ext.arguments import call_or_help
from recbole_ext.evaluation.rerank_metrics import ceiling
from recbole_ext.pipeline.candidates import FILE, Candidates, read_candidates, write_candidates
from recbole_ext.pipeline.corpus import DatasetCorpus
from recbole_ext.pipeline.folders import check_free, make
from recbole_ext.pipeline.merge import merge
from recbole_ext.pipeline.retrieve import PHASES, check_history, retrieve
from recbole_ext.pipeline.trec import export_trec, import_trec
from recbole_ext.rerankers.base import target_places
from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.types import UserError, suggest

SHOWN = (10, 20, 50, 100, 200, 500)
"""Cut-offs at which the recall of candidates is printed."""


@dataclass(frozen=True)
class FromRun:
    """Candidates of a trained model.

    Attributes:
        run: Run folder of any trained model.
        history: mask leaves the user's earlier items out, keep lets them in; as the run by default.
    """

    run: str | None = None
    history: str | None = None


@dataclass(frozen=True)
class FromOthers:
    """Candidates of candidates.

    Attributes:
        from_: Folders of candidates, with commas between.
        merge: How several become one: union (in turns), quota (in turns, so many of each) or rrf.
        quota: Items of each folder for a quota, with commas between: 100,50.
        trec: A TREC run to import; users, targets and histories come from the folder of --from.
        export: Write the candidates of --from as a TREC run to this file.
    """

    from_: str | None = None
    merge: str | None = None
    quota: str | None = None
    trec: str | None = None
    export: str | None = None


def candidates(
    one: FromRun,
    others: FromOthers,
    k: int | None = None,
    split: str = "valid,test",
    output_dir: str | None = None,
) -> None:
    """Keep the best items of every user, by a trained model or by others' candidates.

    Args:
        one: From a run.
        others: From other candidates.
        k: Candidates of each user; 200 by default from a run, all of a merge.
        split: Whose users: valid, test or both with a comma.
        output_dir: Folder to be made; runs/candidates-<of what> by default.
    """
    splits = _splits(split)
    if k is not None and k < 1:
        raise UserError(f"--k takes a number of candidates from 1, not {k}")
    if bool(one.run) == bool(others.from_):
        raise UserError(
            "candidates come from a run (--run=<run folder>) or from other candidates "
            "(--from=<folder>,<folder> --merge=rrf): give one of the two"
        )
    _refuse_mixed(one, others)
    if others.export:
        if k or output_dir:
            raise UserError(
                f"--export takes the candidates as they are, and no --{'k' if k else 'output_dir'};"
                " leave it out"
            )
        _export(others, splits)
        return
    folder = Path(output_dir or _default(one, others, k))
    check_free(folder, (FILE,))
    found = _of_run(one, k, splits) if one.run else _of_others(others, k, splits)
    manifest = write_candidates(make(folder), found)
    print(f"{folder}: {manifest.name} on {manifest.dataset}, history {manifest.history}")
    for name, rows in found.splits.items():
        print(f"  {name}: {_told(rows, manifest.history)}")


def _told(rows: RerankBatch, history: str) -> str:
    """Return the recall of a split's candidates at some cut-offs."""
    assert rows.targets is not None
    places, n = target_places(rows), [len(targets) for targets in rows.targets]
    most = rows.scores.shape[1]
    cutoffs = [k for k in SHOWN if k < most] + [most]
    recalls = ", ".join(f"@{k} {ceiling(places, n, k):.4f}" for k in cutoffs)
    lost = sum(
        target in history
        for targets, history in zip(rows.targets, rows.histories, strict=True)
        for target in targets
    )
    which = ", which is masked" if history == "mask" else ""
    words = f"; {lost} of {sum(n)} targets stand in the history{which}" if lost else ""
    return f"{len(rows)} users, recall {recalls}{words}"


def _splits(text: str) -> list[str]:
    splits = list(dict.fromkeys(filter(None, text.split(","))))
    for name in splits:
        if name not in PHASES:
            raise UserError(
                f"--split takes {' or '.join(PHASES)} or both, not '{name}'{suggest(name, PHASES)}"
            )
    if not splits:
        raise UserError(f"--split is empty; it takes {','.join(PHASES)} or one of them")
    return splits


def _default(one: FromRun, others: FromOthers, k: int | None) -> str:
    if one.run:
        return f"runs/candidates-{Path(one.run).name}-k{k or 200}"
    names = "-".join(Path(name).name for name in str(others.from_).split(","))
    return f"runs/candidates-{others.merge or Path(others.trec or 'trec').stem}-{names}"[:200]


def _refuse_mixed(one: FromRun, others: FromOthers) -> None:
    """Refuse what would do nothing."""
    if one.history and not one.run:
        raise UserError("--history is for --run; what is of --from is masked or not already")
    for name, value in vars(others).items():
        if value and one.run:
            raise UserError(f"--{name} is for candidates of --from; leave it out beside --run")


def _of_run(one: FromRun, k: int | None, splits: list[str]) -> Candidates:
    if one.history is not None:
        check_history(one.history)
    return retrieve(str(one.run), 200 if k is None else k, splits, one.history)


def _of_others(others: FromOthers, k: int | None, splits: list[str]) -> Candidates:
    folders = list(filter(None, str(others.from_).split(",")))
    sources = [read_candidates(folder) for folder in folders]
    if others.trec:
        if len(sources) != 1 or len(splits) != 1 or others.merge or others.quota or k:
            raise UserError(
                "--trec takes one folder and one split, and nothing of a merge: "
                "--trec=run.txt --from=<folder> --split=test"
            )
        catalogue = set(DatasetCorpus(sources[0].manifest).items)
        return import_trec(Path(others.trec), sources[0], splits[0], catalogue)
    if not others.merge:
        raise UserError("--from takes --merge=union, quota or rrf, or --trec, or --export")
    return merge(sources, others.merge, _quotas(others.quota), k, splits)


def _quotas(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"--quota takes a number for each folder, as in 100,50, not '{text}'")
    return [int(part) for part in parts]


def _export(others: FromOthers, splits: list[str]) -> None:
    folders = str(others.from_).split(",")
    if len(folders) != 1 or len(splits) != 1 or others.merge or others.trec:
        raise UserError("--export takes one folder and one split: --from=<folder> --split=test")
    found = read_candidates(folders[0])
    path = Path(str(others.export))
    rows = found.split(splits[0])
    export_trec(path, rows, found.manifest.name.replace(" ", "_").replace(",", ""))
    print(f"{path}: {len(rows)} users")


def run(arguments: Sequence[str]) -> int:
    """Run the command by its arguments; return the exit code."""
    return call_or_help(candidates, arguments, "recbole-ext candidates")
