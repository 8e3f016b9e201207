"""The page of finished comparisons."""

from __future__ import annotations

from benchmarks.results import PUBLISHED, UNMASKED, main, page
from recbole_ext.compare.report import write_report


def test_the_page_has_the_reports_one_level_down_and_the_published_rows():
    report = f"# Comparison on {{0}}\n\n## {{0}}\n\n### Quality\n\n| a | {UNMASKED} |\n"
    found = page([report.format(name) for name in ("amazon-beauty", "amazon-beauty-small")])
    heads = [line for line in found.splitlines() if line.startswith("#")]
    assert heads[1:4] == ["## Comparison on amazon-beauty", "### amazon-beauty", "#### Quality"]
    assert found.count("#### Published") == 1
    rows = [line for line in found.splitlines() if line.startswith("| DuoRec, its paper")]
    assert rows and rows[0].split(" | ")[2] == ".0845"
    assert len(PUBLISHED["amazon-beauty"]) == 4


def test_published_rows_are_beside_what_was_ranked_alike_only(finished):
    report = "# Comparison\n\n## other\n\n| {} |\n\n## amazon-beauty\n\n| {} |\n"
    masked = "a user's earlier items are left out of the ranking"
    assert "#### Published" in page([report.format(masked, UNMASKED)])
    assert "#### Published" not in page([report.format(UNMASKED, masked)])
    write_report(finished)
    assert UNMASKED in (finished / "report.md").read_text()


def test_a_folder_without_a_report_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"no report.md in {tmp_path}\n"
