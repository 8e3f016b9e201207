"""The page of finished comparisons."""

from __future__ import annotations

from benchmarks.results import PUBLISHED, main, page


def test_the_page_has_the_reports_one_level_down_and_the_published_rows():
    report = "# Comparison on {0}\n\n## {0}\n\n### Quality\n\n| a | b |\n"
    found = page([report.format(name) for name in ("amazon-beauty", "amazon-beauty-small")])
    heads = [line for line in found.splitlines() if line.startswith("#")]
    assert heads[1:4] == ["## Comparison on amazon-beauty", "### amazon-beauty", "#### Quality"]
    assert found.count("#### Published") == 1
    rows = [line for line in found.splitlines() if line.startswith("| DuoRec, its paper")]
    assert rows and rows[0].split(" | ")[2] == ".0845"
    assert len(PUBLISHED["amazon-beauty"]) == 4


def test_a_folder_without_a_report_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"no report.md in {tmp_path}\n"
