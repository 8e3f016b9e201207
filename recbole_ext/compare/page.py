"""A report as blocks, and their two forms: markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_SENTENCE, _NUMBER = 40, 12
"""Letters of a cell from which on it is text that may break, and up to which it must not."""

Block = tuple[str, Any]
"""``(kind, content)``: h1, h2, h3, p with text; table with rows, head first; figure with HTML."""

_STYLE = """
:root{color-scheme:light dark;--line:#d4d7dd;--soft:#5b6270;--accent:#2563eb;
--c0:#2563eb;--c1:#c2570c;--c2:#047857;--c3:#be123c;--c4:#7c3aed;--c5:#0e7490;--c6:#a16207;--c7:#57534e}
@media(prefers-color-scheme:dark){:root{--line:#3b4049;--soft:#a5acb8;--accent:#60a5fa;
--c0:#60a5fa;--c1:#fb923c;--c2:#34d399;--c3:#fb7185;--c4:#a78bfa;--c5:#22d3ee;--c6:#facc15;--c7:#a8a29e}}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:auto;padding:1rem}
h1,h2,h3{line-height:1.2;margin:2rem 0 .5rem}h1{margin-top:.5rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums;font-size:.9rem}
td,th{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top}
th{font-weight:600}td{white-space:nowrap}.prose td{white-space:normal;overflow-wrap:anywhere}
.prose td.short{white-space:nowrap}
tr>:first-child{position:sticky;left:0;background:canvas;min-width:7.5rem}
td:first-child,.prose td:first-child{white-space:normal;overflow-wrap:break-word}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.5rem;
margin:1rem 0}
figure{margin:0;min-width:0}figcaption{font-weight:600}
svg{width:100%;max-width:30rem;height:auto;display:block}
svg text{fill:currentColor;font:12px system-ui,sans-serif}svg .soft{fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1;fill:none}
ul.legend{list-style:none;
display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.3rem 0;padding:0;font-size:.85rem}
ul.legend svg{display:inline-block;width:26px;vertical-align:middle;margin-right:.35rem}
"""


def markdown(blocks: Sequence[Block]) -> str:
    """Return the blocks as markdown, the figures left out."""
    return "\n\n".join(_markdown(*block) for block in blocks if block[0] != "figure") + "\n"


def html(title: str, blocks: Sequence[Block]) -> str:
    """Return the blocks as one HTML file: no script, no file or address that it loads."""
    parts: list[str] = []
    for i, (kind, content) in enumerate(blocks):
        if kind == "figure" and (i == 0 or blocks[i - 1][0] != "figure"):
            parts.append('<div class="figures">')
        parts.append(_html(kind, content))
        if kind == "figure" and (i + 1 == len(blocks) or blocks[i + 1][0] != "figure"):
            parts.append("</div>")
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    )
    return "\n".join([head, *parts, "</body></html>", ""])


def _markdown(kind: str, content: Any) -> str:
    if kind == "table":
        rows = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in content
        ]
        return "\n".join([rows[0], "|" + "---|" * len(content[0]), *rows[1:]])
    return {"h1": "# ", "h2": "## ", "h3": "### "}.get(kind, "") + content


def _html(kind: str, content: Any) -> str:
    if kind == "figure":
        return content
    if kind == "table":
        head, *rows = content
        # sentences may break, numbers not
        has_prose = any(len(cell) > _SENTENCE for row in rows for cell in row)
        prose = ' class="prose"' if has_prose else ""
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
        return (
            f'<div class="wide"><table{prose}><thead><tr>{_cells("th", head)}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    return f"<{kind}>{escape(content)}</{kind}>"


def _cells(tag: str, row: Sequence[str]) -> str:
    short = ' class="short"' if tag == "td" else ""
    return "".join(
        f"<{tag}{short if len(cell) <= _NUMBER else ''}>{escape(cell)}</{tag}>" for cell in row
    )
