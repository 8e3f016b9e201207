"""What ``rerank`` prints and keeps: three blocks in one table, and the ceilings below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BLOCKS = {
    "stage_one": "stage one, all {n_users} users",
    "conditional": "reranked, the {n_hits} users with a hit",
    "overall": "reranked, all {n_users} users",
    "random": "by chance (K/N)",
}
CEILINGS = {
    "retrieval_top_k": "all",
    "rerank_top_k": "those that are reranked, the ceiling",
    "output_top_k": "those that would be shown without a reranker",
}


def report_of(result: Mapping[str, Any]) -> str:
    """Return a result of :mod:`recbole_ext.pipeline.ranked_folder` as markdown.

    Sampled candidates have a page, a heading and a baseline of their own: their numbers stand in no
    table with those of a full ranking.
    """
    is_sampled = result["mode"] == "ground_truth"
    n = result["ceilings"]["rerank_top_k"]["k"]
    about = f"{result['dataset']}, {result['split']}"
    head = (
        f"SAMPLED, one positive among {n} candidates, no full ranking: {about}"
        if is_sampled
        else f"Full ranking, candidates of stage one: {about}"
    )
    names = list(result["metrics"]["overall"])
    rows = [
        [BLOCKS[block].format(**result), *(f"{values[name]:.4f}" for name in names)]
        for block, values in result["metrics"].items()
    ]
    lines = [
        f"# {head}",
        "",
        f"stage one {result['retriever']}; reranker {result['reranker']}",
        "",
        table(["", *names], rows),
        "",
        f"hit rate {result['hit_rate']:.4f}: overall is conditional x hit rate",
    ]
    if is_sampled and result["n_again"]:
        lines.append(
            "{n_again} of {n_users} positives stand in their user's history, and no sampled item "
            "does, which tells a reranker the answer".format(**result)
        )
    if not is_sampled:
        recalls = [
            f"{CEILINGS[name]} ({name} {one['k']}) {one['recall']:.4f}"
            for name, one in result["ceilings"].items()
        ]
        lines.append(f"recall of the candidates: {'; '.join(recalls)}")
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table whose columns are aligned as text too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * width if not i else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])
