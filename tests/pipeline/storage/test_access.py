"""What cannot be written is refused before any work, in one sentence with the remedy."""

import os
import tempfile
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.errors import ConfigurationError
from pipeline.storage import access
from pipeline.storage.access import require_writable, temporary_folder, use_temporary_folder
from pipeline.storage.store import open_store
from tests.permissions import forbidden
from tests.sample_photos import face_album


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the real command says as it refuses."""
    with pytest.raises(SystemExit) as ended:
        main_with(*arguments)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "bug" not in said
    return said


def main_with(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["dladiff", *arguments])
        main()


@pytest.mark.parametrize("command", ["protect", "evaluate"])
@pytest.mark.parametrize("place", ["file", "file/below", "readonly/out", "/proc/out"])
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    album = face_album(tmp_path / "in", {"ann": 1})
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "readonly").mkdir()
    trees = [str(album)] if command == "protect" else [str(album), str(album)]
    with forbidden(tmp_path / "readonly", mode=0o555):
        said = failing(capsys, command, *trees, str(tmp_path / place))
    assert "cannot be written" in said
    assert "give a folder that this user may make and write" in said


def test_a_report_that_cannot_be_written_is_no_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    store = open_store(str(tmp_path / "out"))
    require_writable(store)
    assert failing(capsys, "report", str(tmp_path / "out"), "--to", str(tmp_path / "file/x.html"))


def test_nothing_of_the_question_stays(tmp_path: Path) -> None:
    assert require_writable(open_store(str(tmp_path / "out")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_temporary_files_go_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert temporary_folder() == str(long)
    assert len(temporary_folder(40)) <= 40
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    use_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] != str(tmp_path / "missing")


def test_without_any_room_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(access, "_MIN_FREE_BYTES", 2**80)
    with pytest.raises(ConfigurationError, match="free some space, or set TMPDIR"):
        temporary_folder()
    album = face_album(tmp_path / "in", {"ann": 1})
    assert str(tmp_path) in failing(capsys, "protect", str(album), str(tmp_path / "out"))
