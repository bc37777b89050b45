"""Tables of README and documents come from the result files, and say what was not measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.inspection.explain import SOURCE_NOTES
from tools.results import through_tables
from tools.results.__main__ import ROOT, with_tables
from tools.results.protection import ProtectionResults, judges_table, summary_table


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "results" / "protection.json").read_text())
    return loaded


def test_the_readmes_table_is_that_of_the_result_file_and_has_at_most_six_rows() -> None:
    text = (ROOT / "README.md").read_text()
    assert with_tables(text) == text
    table = re.search(r"<!-- results: protection -->\n(.*?)<!--", text, re.DOTALL)
    assert table is not None
    assert 3 <= len(table[1].splitlines()) - 2 <= 6


def test_another_number_in_the_file_is_another_table(values: dict[str, Any]) -> None:
    judges = values["presets"]["strong"]["effect"]
    judges["MobileFaceNet"]["plain"] = [-0.04, -0.1, 0.01]
    judges["SFace"]["plain"] = [3.0]  # in the loss: no judge of the summary
    values["presets"]["strong"]["jod"] = {"at_1x": 9.74, "at_2x": 9.21}
    table = summary_table(ProtectionResults.model_validate(values))
    assert "**-.04 (-.10-.01)** MobileFaceNet" in table
    assert "3.00" not in table
    assert "9.74; 9.21; " in table


def test_an_unknown_judge_is_refused_and_a_missing_one_said(values: dict[str, Any]) -> None:
    effects = values["presets"]["strong"]["effect"]
    del effects["SFace"]
    assert "| not measured | not measured |" in judges_table(
        ProtectionResults.model_validate(values)
    )
    effects["Sface"] = effects["MobileFaceNet"]
    with pytest.raises(ValidationError, match=r"strong: judges that are not in the list"):
        ProtectionResults.model_validate(values)


def test_a_marker_that_names_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table 'other'"):
        with_tables("<!-- results: other -->\n<!-- /results -->")


def test_every_document_with_a_marker_is_up_to_date() -> None:
    documents = [path for path in (ROOT / "docs").rglob("*.md") if "<!-- results:" in _text(path)]
    assert documents
    for path in documents:
        assert with_tables(_text(path)) == _text(path), path.name


def _text(path: Path) -> str:
    return path.read_text()


def test_the_page_of_files_has_the_tables_of_notes_and_bytes() -> None:
    text = (ROOT / "docs" / "files.md").read_text()
    assert with_tables(text) == text
    for note in SOURCE_NOTES:
        assert f"| `{note}` |" in text
    files = json.loads((ROOT / "results" / "files.json").read_text())
    assert {row["folder"] for row in files["bytes"]} == {"lfw12", "portraits"}
    assert all(f"| {row['ratio']:.2f} |" in text for row in files["bytes"])


def test_every_method_of_the_curve_has_a_row_of_what_the_autoencoder_shows() -> None:
    text = (ROOT / "docs" / "efficacy.md").read_text()
    rows = [
        json.loads(line) for line in (ROOT / "results" / "frontier.jsonl").read_text().splitlines()
    ]
    table = re.search(r"<!-- results: through-methods -->\n(.*?)<!--", text, re.DOTALL)
    assert table is not None
    assert len(table[1].splitlines()) - 2 == len(rows)


def test_what_the_autoencoder_shows_beyond_what_is_meant_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {("clean", "A"): 0.74, ("protected", "A"): 0.2, ("clean", "B"): 0.6}
    shown |= {("protected", "B"): 0.21, ("clean", "Lead"): 0.8, ("protected", "Lead"): 0.5}
    lines = [
        {
            "short_side": None,
            "handling": "none",
            "condition": condition,
            "judge": judge,
            "in_loss": judge == "Lead",
            "kin_of_loss": False,
            "through": {"value": value},
        }
        for (condition, judge), value in shown.items()
    ]
    (tmp_path / "through.json").write_text(json.dumps({"lines": lines}))
    monkeypatch.setattr(through_tables, "RESULTS", tmp_path)
    head, _, row = through_tables.sizes_table().splitlines()
    assert "A: clean, `balanced` | B: clean, `balanced`" in head
    assert row.endswith("| at most .20 | .74, .20 | .60, **.21** |")
