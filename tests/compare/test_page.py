"""The report as a page: its parts by hand, and the whole of it in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recbole_ext.compare import charts
from recbole_ext.compare.page import html, markdown
from recbole_ext.compare.report import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_VOID = {"meta", "br", "link"}


class Tree(HTMLParser):
    """Counts tags, and remembers those that are closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize("low, high", [(0, 1), (0.0123, 0.0131), (-0.02, 0.3), (5, 5), (0, 0)])
def test_ticks_are_round_and_hold_the_values(low, high):
    ticks = charts.ticks_of(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 7
    assert f"{step:.0e}"[0] in "125" and float(f"{step:.0e}") == pytest.approx(step)


def test_whole_ticks():
    assert charts.ticks_of(1, 2, whole=True) == [1, 2]


def test_names_are_text_and_no_markup():
    text = html("a<b", [("p", "<i>&"), ("table", [["x|y"], ["<td>"]])])
    assert "<i>" not in text and "&lt;i&gt;&amp;" in text and "<title>a&lt;b" in text
    assert "x\\|y" in markdown([("table", [["x|y"], ["1"]])])
    assert "<b>" not in charts.bars("<b>", {"<b>": (0.1, 0.0, 0.2)})


def test_bars_are_to_scale():
    text = charts.bars("t", {"a": (0.1, 0.05, 0.2), "b": (0.05, 0.0, 0.1)})
    a, b = map(float, re.findall(r'<rect [^>]*width="([\d.]+)"', text))
    assert a == pytest.approx(2 * b, abs=0.1)


def test_the_report_is_well_formed_and_self_contained(finished: Path):
    write_report(finished)
    text = (finished / "report.html").read_text()
    tree = Tree(text)
    assert tree.wrong == [] and tree.open == []
    # quality, best baseline, controls, warm and cold items, cost, what was equal
    assert tree.counts["table"] == 6
    assert text.count('class="plot"') == 6
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text and "width=device-width" in text
    assert "nan" not in text.lower().replace("finance", "")
    report = (finished / "report.md").read_text()
    for part in ("mask_history", "all items", "tuning budget", "† Pop", "DuoRec of the same seed"):
        assert part in report, part


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the page as the browser has it, and the lines of its console."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, and none is on the PATH")
def test_a_browser_shows_tables_and_plots_and_reports_no_error(finished: Path, tmp_path: Path):
    write_report(finished)
    page, console = opened(finished / "report.html", tmp_path / "profile")
    assert Tree(page).counts["table"] == 6
    assert page.count('class="plot"') == 6
    assert console == []
    bad = tmp_path / "bad.html"  # so that silence means something
    bad.write_text("<!doctype html><title>x</title><script>missing()</script>")
    assert "missing is not defined" in opened(bad, tmp_path / "profile")[1][0]
