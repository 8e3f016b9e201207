"""How candidates are ranked and measured: the options that the command and the pipeline share."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_ext.pipeline.sizes import Sizes, sizes_of
from recbole_ext.types import UserError, suggest

MODES = ("retrieval", "ground_truth")
N_SAMPLED = 20
"""Candidates of a user in mode ground_truth, by default."""


@dataclass(frozen=True)
class Ranking:
    """How candidates are ranked and measured.

    Attributes:
        mode: retrieval ranks stage one's candidates; ground_truth one positive among sampled ones.
        split: Whose users are ranked: valid or test.
        retrieval_top_k: Candidates of each user that are looked at; all by default.
        rerank_top_k: Candidates that the reranker scores; 50 by default, or fewer.
        output_top_k: Length of the resulting lists; 20 by default, or fewer.
        topk: Cut-offs of the metrics, with commas between.
        batch_size: Users that are scored together.
        text_template: Text of an item, as "{movie_title} ({release_year})"; its title by default.
    """

    mode: str = "retrieval"
    split: str = "test"
    retrieval_top_k: int | None = None
    rerank_top_k: int | None = None
    output_top_k: int | None = None
    topk: str = "5,10,20"
    batch_size: int = 64
    text_template: str | None = None

    def __post_init__(self) -> None:
        for key, value, words in (
            ("mode", self.mode, MODES),
            ("split", self.split, ("valid", "test")),
        ):
            if value not in words:
                raise UserError(
                    f"{key} takes {' or '.join(words)}, not '{value}'{suggest(value, words)}"
                )
        if self.batch_size < 1:
            raise UserError(f"batch_size takes a number from 1, not {self.batch_size}")

    @property
    def beside_default(self) -> list[str]:
        """Split and mode where they are not test and retrieval, for a folder's name."""
        return [one for one in (self.split, self.mode) if one not in ("test", "retrieval")]

    @property
    def cutoffs(self) -> list[int]:
        """The cut-offs of the metrics."""
        parts = self.topk.strip("[]").replace(" ", "").split(",")
        if not all(part.isdecimal() and int(part) for part in parts):
            raise UserError(f"topk takes numbers with commas between, 5,10,20, not '{self.topk}'")
        return sorted({int(part) for part in parts})

    def sizes(self, k: int) -> Sizes:
        """Return the three sizes; of sampled candidates, any number may be drawn."""
        given = (self.retrieval_top_k, self.rerank_top_k, self.output_top_k)
        if self.mode == "ground_truth":
            if self.retrieval_top_k is not None:
                raise UserError(
                    "retrieval_top_k is for mode retrieval; of sampled candidates rerank_top_k is "
                    "the number"
                )
            n = N_SAMPLED if self.rerank_top_k is None else self.rerank_top_k
            return sizes_of(n, n, self.output_top_k, n)
        return sizes_of(*given, k)
