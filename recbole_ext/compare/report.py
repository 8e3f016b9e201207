"""Writes ``results.csv`` (a row per run and metric), ``report.md`` and ``report.html``."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.compare.collect import Done, read_plan, read_runs
from recbole_ext.compare.plan import EQUAL_KEYS
from recbole_ext.compare.statistics import bootstrap_interval, holm, sign_flip_p
from recbole_ext.run_folder import write_text

_STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;
margin:auto;padding:1rem}div{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.2rem .6rem;border-bottom:1px solid #8886;text-align:left}
td{overflow-wrap:anywhere}svg{max-width:100%;height:auto;fill:currentColor}"""


def write_report(place: Path) -> str:
    """Write the three files from what is in the comparison's folder; return the report's text."""
    rows = read_plan(place)
    blocks: list[tuple[str, Any]] = [("h1", "Comparison")]
    csv: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == dataset]
        done = read_runs(place, mine)
        blocks.append(("h2", dataset))
        have = {(one.model, one.seed) for one in done}
        blocks += [
            ("p", f"Missing: {r['model']}, seed {r['seed']}: {r['failure'] or 'not run yet'}")
            for r in mine
            if (r["model"], r["seed"]) not in have
        ]
        if done:
            blocks += _dataset(done)
        csv += [
            {"dataset": dataset, "model": one.model, "seed": one.seed, "metric": n, "value": v}
            for one in done
            for n, v in one.result["test"].items()
        ]
    columns = ["dataset", "model", "seed", "metric", "value"]
    write_text(place / "results.csv", pd.DataFrame(csv, columns=columns).to_csv(index=False))
    text = "\n\n".join(_markdown(kind, content) for kind, content in blocks if kind != "svg")
    write_text(place / "report.md", text + "\n")
    body = "\n".join(_html(kind, content) for kind, content in blocks)
    write_text(
        place / "report.html",
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>Comparison</title><style>{_STYLE}</style>{body}</html>\n",
    )
    return f"{text}\n\nreport: {place / 'report.html'}"


def _dataset(done: list[Done]) -> list[tuple[str, Any]]:
    models = {
        m: [one for one in done if one.model == m] for m in dict.fromkeys(d.model for d in done)
    }
    valid = done[0].settings["valid_metric"].lower()
    names = [n for n in done[0].result["test"] if n in done[0].users]
    metric = valid if valid in names else names[0]
    # a model that starts from another is what is compared; the others are its baselines
    baselines = [m for m, runs in models.items() if not runs[0].result["warm_start"]] or list(
        models
    )
    # by validation: the best on the test would be chosen by what it is then judged on
    best = max(
        baselines,
        key=lambda m: np.mean([one.result["best_valid"].get(valid, -np.inf) for one in models[m]]),
    )
    averaged = {m: sum(one.users for one in runs) / len(runs) for m, runs in models.items()}
    others = [m for m in models if m != best]
    gains = {m: (averaged[m] - averaged[best])[metric].to_numpy() for m in others}  # [U] each
    p_values = dict(zip(others, holm([sign_flip_p(gains[m]) for m in others]), strict=True))
    quality = [["model", "seeds", *names]]
    cost = [["model", "training seconds", "epochs", "peak GiB"]]
    for model, runs in models.items():
        tests = pd.DataFrame([one.result["test"] for one in runs])
        spread = tests.std() if len(runs) > 1 else tests.std() * np.nan
        cells = [
            f"{tests[n].mean():.4f}" + ("" if np.isnan(spread[n]) else f" ± {spread[n]:.4f}")
            for n in names
        ]
        quality.append([model, str(len(runs)), *cells])
        peaks = [v for r in runs for v in r.result["peak_memory_gib"].values()]
        seconds = np.mean([r.result["seconds"]["train"] for r in runs])
        epochs = np.mean([r.n_epochs for r in runs])
        cost.append([model, f"{seconds:.1f}", f"{epochs:.1f}", f"{max(peaks):.2f}"])
    against = [["model", f"gain in {metric} over {best}", "95 % interval", "p (Holm)"]]
    for m in others:
        low, high = bootstrap_interval(gains[m])
        against.append(
            [m, f"{gains[m].mean():+.4f}", f"{low:+.4f} to {high:+.4f}", f"{p_values[m]:.4f}"]
        )
    equal = [["what was equal", "value"]]
    equal += [[key, str(done[0].settings.get(key))] for key in EQUAL_KEYS]
    equal.append(["dataset fingerprint", str(done[0].result["dataset_fingerprint"])])
    bars = {
        m: (u[metric].mean(), *bootstrap_interval(u[metric].to_numpy()))
        for m, u in averaged.items()
    }
    warnings = [
        (
            "p",
            f"{one.model}, seed {one.seed}: result.json and users' means differ (ties?): {bad}",
        )
        for one in done
        if (bad := one.not_reproduced())
    ]
    return [
        ("p", "Test metrics, mean ± standard deviation over seeds."),
        ("table", quality),
        ("p", f"{metric}, mean over users and seeds, with the 95 % interval over users."),
        ("svg", _bars(bars)),
        (
            "p",
            f"Against {best}, the best baseline on validation ({valid}): paired bootstrap over "
            "users, sign-flip test, Holm's correction over the models of this table.",
        ),
        ("table", against),
        ("table", cost),
        ("table", equal),
        *warnings,
    ]


def _bars(values: dict[str, tuple[float, float, float]]) -> str:
    scale = 330 / max(1e-12, *(high for *_, high in values.values()))
    parts = []
    for i, (model, (mean, low, high)) in enumerate(values.items()):
        y = 30 * i
        parts.append(
            f'<text x="0" y="{y + 18}" font-size="13">{escape(model)}</text>'
            f'<rect x="110" y="{y + 5}" width="{mean * scale:.1f}" height="18" opacity=".4"/>'
            f'<path d="M{110 + low * scale:.1f} {y + 14}H{110 + high * scale:.1f}" '
            'stroke="currentColor" stroke-width="2"/>'
            f'<text x="{116 + high * scale:.1f}" y="{y + 18}" font-size="13">{mean:.4f}</text>'
        )
    return f'<svg viewBox="0 0 500 {30 * len(values)}" role="img">{"".join(parts)}</svg>'


def _markdown(kind: str, content: Any) -> str:
    if kind == "table":
        lines = ["| " + " | ".join(row) + " |" for row in content]
        return "\n".join([lines[0], "|" + "---|" * len(content[0]), *lines[1:]])
    return {"h1": "# ", "h2": "## "}.get(kind, "") + content


def _html(kind: str, content: Any) -> str:
    if kind == "svg":
        return content
    if kind == "table":
        head, *rows = ["".join(f"<@>{escape(cell)}</@>" for cell in row) for row in content]
        body = "".join(f"<tr>{row.replace('@>', 'td>')}</tr>" for row in rows)
        return f"<div><table><tr>{head.replace('@>', 'th>')}</tr>{body}</table></div>"
    return f"<{kind}>{escape(content)}</{kind}>"
