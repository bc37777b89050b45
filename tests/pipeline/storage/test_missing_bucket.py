"""A bucket that does not exist, on a real S3 server: refused before work, whatever the command."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from tests.sample_photos import jpeg_bytes, write_album

pytestmark = pytest.mark.usefixtures("restored_logging", "s3_endpoint")

BUCKET = "dladiff-no-such-bucket"
MISSING = f"s3://{BUCKET}/photos"


def dladiff(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="dladiff")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    album = write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes()})
    return {"IN": str(album), "OUT": str(tmp_path / "out"), "MISSING": MISSING}


@pytest.mark.parametrize(
    "command",
    [
        "protect IN MISSING",
        "protect MISSING OUT",
        "protect IN MISSING --batch",
        "plan IN MISSING",
        "plan MISSING OUT",
        "check MISSING",
        "check IN MISSING",
        "status MISSING",
        "verify MISSING",
        "verify MISSING IN",
        "explain MISSING ann/1.jpg",
        "report MISSING --to OUT.html",
        "gc MISSING",
        "forget MISSING --identity ann",
        "convert MISSING",
        "audit MISSING",
        "evaluate IN IN MISSING",
    ],
)
def test_it_is_refused_with_the_remedy_and_not_made(
    places: dict[str, str], s3_client: Any, command: str
) -> None:
    done = dladiff(*(places.get(word, word) for word in command.split()))
    said = done.stdout + done.stderr
    assert done.exit_code == 1, said
    assert MISSING in said
    assert "bug" not in said
    assert any(remedy in said for remedy in ("make it, or correct its name", "there is no OUTPUT"))
    buckets = s3_client.list_buckets()["Buckets"]
    assert BUCKET not in {bucket["Name"] for bucket in buckets}
