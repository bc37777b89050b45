"""The tutorial of the documents runs as it stands."""

import re
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "docs" / "library.md"


def test_the_blocks_of_the_tutorial_run_one_after_the_other() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", LIBRARY.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"library.md, block {number}", "exec"), names)
    assert "judged" in names
