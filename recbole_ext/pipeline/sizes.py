"""How many items go from stage to stage, three numbers that are never one."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_ext.types import UserError

OUTPUT, RERANK = 20, 50
"""Defaults where there are as many candidates."""


@dataclass(frozen=True)
class Sizes:
    """Items of each user that each step takes.

    Attributes:
        retrieval_top_k: Candidates that are looked at.
        rerank_top_k: The best of them, which the reranker scores.
        output_top_k: The best of those, which are the result.
    """

    retrieval_top_k: int
    rerank_top_k: int
    output_top_k: int

    def cutoffs(self, topk: list[int]) -> list[int]:
        """Return the cut-offs of metrics that lie within the result.

        Raises:
            UserError: None does.
        """
        inside = [k for k in topk if k <= self.output_top_k]
        if not inside:
            raise UserError(
                f"topk: every cut-off of {topk} is beyond output_top_k {self.output_top_k}; lower "
                "one or raise output_top_k"
            )
        return inside


def sizes_of(retrieval: int | None, rerank: int | None, output: int | None, k: int) -> Sizes:
    """Return the three sizes, with defaults where none is given.

    Args:
        retrieval: ``retrieval_top_k``.
        rerank: ``rerank_top_k``.
        output: ``output_top_k``.
        k: Candidates of a user that there are.

    Raises:
        UserError: One is below 1, or more than the step before gives.
    """
    retrieval = k if retrieval is None else retrieval
    rerank = min(RERANK, retrieval) if rerank is None else rerank
    output = min(OUTPUT, rerank) if output is None else output
    chain = {"the candidates": k, "retrieval_top_k": retrieval, "rerank_top_k": rerank}
    for (before, most), (name, value) in zip(
        chain.items(),
        [("retrieval_top_k", retrieval), ("rerank_top_k", rerank), ("output_top_k", output)],
        strict=True,
    ):
        if value < 1:
            raise UserError(f"{name} takes a number from 1, not {value}")
        if value > most:
            given = f"{before} of each user, {most}" if before[0] == "t" else f"{before} {most}"
            raise UserError(f"{name} {value} is more than {given}; lower it or raise that")
    return Sizes(retrieval, rerank, output)
