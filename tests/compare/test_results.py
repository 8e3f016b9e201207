"""The page of finished comparisons."""

from __future__ import annotations

import json
import shutil

from benchmarks import join
from benchmarks.results import PUBLISHED, UNMASKED, main, page
from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.report import write_report
from recbole_ext.run_folder import write_text


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


def test_comparisons_that_ran_apart_are_joined(finished, tmp_path, capsys):
    """One folder has BPR, another the rest and BPR planned: joined they are the whole."""
    rows = read_plan(finished)
    bpr = [row for row in rows if row["name"] == "BPR"]
    rest = [row for row in rows if row["name"] != "BPR"]
    for name, planned, done in (("bpr", bpr, bpr), ("rest", rows, rest)):
        shutil.copytree(finished / "data", tmp_path / name / "data")
        for row in done:
            shutil.copytree(finished / row["folder"], tmp_path / name / row["folder"])
        write_text(tmp_path / name / "plan.json", json.dumps(planned))
    folders = [str(tmp_path / name) for name in ("all", "rest", "bpr")]
    assert join.main(folders) == 0, capsys.readouterr().err
    write_report(finished)
    found = (tmp_path / "all" / "report.md").read_text()
    assert "Missing" not in found and found == (finished / "report.md").read_text()
    assert not list((tmp_path / "all").rglob("*.pt"))
    assert join.main([*folders[:2], str(tmp_path / "none")]) == 2
    assert "holds no comparison" in capsys.readouterr().err
