"""Writes the reports of finished comparisons as one page, beside what papers say of the same data.

python -m benchmarks.results runs/beauty runs/beauty-variants > docs/results.md
"""

from __future__ import annotations

import sys
from pathlib import Path

PUBLISHED = {
    "amazon-beauty": [
        (
            "SASRec with cross-entropy, in DuoRec's code",
            ".0555",
            ".0830",
            ".1191",
            ".0326",
            ".0415",
        ),
        ("DuoRec, its paper (arXiv:2110.05730)", ".0546", ".0845", "", ".0352", ".0443"),
        ("DuoRec, a log of RaSeRec's authors", ".0541", ".0834", ".1217", ".0337", ".0431"),
        (
            "RaSeRec, its log (remembers validation too)",
            ".0567",
            ".0863",
            ".1244",
            ".0367",
            ".0462",
        ),
    ]
}
"""Dataset -> what others report of the same data, split and ranking."""
UNMASKED = "a user's earlier items are ranked too"
"""What a report says of a ranking as that of the papers."""
HEAD = ("", "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10")
ABOUT = """# Results

Written by `python -m benchmarks.results` from the reports of `recbole-ext compare`. The first line
of `examples/compare_*.yaml` is the command of each comparison; parts of one that ran apart were put
together by `python -m benchmarks.join`. Seconds are by the clock, and other work went on beside the
runs."""


def page(reports: list[str]) -> str:
    """Return the page of comparisons, given their ``report.md``."""
    parts = [ABOUT]
    for report in reports:
        title, _, body = report.partition("\n")
        deeper = body.replace("\n###", "\n####").replace("\n## ", "\n### ")
        parts += [f"## {title.lstrip('# ')}", deeper.strip()]
        parts += [_published(name) for name in PUBLISHED if _is_alike(name, body)]
    return "\n\n".join(parts) + "\n"


def _is_alike(dataset: str, body: str) -> bool:
    """Return whether a report has a dataset, ranked as in the papers: the history too."""
    section = f"\n{body}\n## ".partition(f"\n## {dataset}\n")[2].partition("\n## ")[0]
    return UNMASKED in section


def _published(dataset: str) -> str:
    lines = ["#### Published: leave one out, 5-core, full ranking, history not masked", ""]
    rows = [HEAD, ("---",) * len(HEAD), *PUBLISHED[dataset]]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def main(folders: list[str]) -> int:
    """Print the page of the folders' reports."""
    missing = [one for one in folders if not (Path(one) / "report.md").is_file()]
    if missing or not folders:
        print(__doc__ if not folders else f"no report.md in {missing[0]}", file=sys.stderr)
        return 2
    texts = [(Path(one) / "report.md").read_text(encoding="utf-8") for one in folders]
    print(page(texts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
