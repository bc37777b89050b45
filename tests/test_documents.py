"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    rooms = "benchmarks|deploy|dladiff|docs|examples|k8s|pipeline|tests|tools"
    named = re.findall(rf"`((?:{rooms})/[\w./-]*|[\w-]+\.(?:md|toml|txt))`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    links = re.findall(r"\]\(([^)#]+)\)", text)
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_documents_that_the_code_cites_are_there() -> None:
    code = [path for room in ("dladiff", "pipeline") for path in (ROOT / room).rglob("*.py")]
    cited = {name for path in code for name in re.findall(r"\b(\w+\.md)\b", path.read_text())}
    assert {"method.md", "pipeline.md"} <= cited
    for name in cited - {"README.md"}:
        assert any((ROOT / "docs").rglob(name)), name


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) >= 15
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in tests} == set()
