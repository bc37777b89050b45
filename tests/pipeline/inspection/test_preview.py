"""``dladiff plan``: what a run would do, in lines for a person."""

from pathlib import Path

from pipeline.config import load_config
from pipeline.inspection.preview import preview_lines, preview_run
from pipeline.options import RunOptions
from tests.sample_photos import jpeg_bytes, write_album


def lines(folder: Path, source: str) -> str:
    config = load_config("zero-shot")
    preview = preview_run(str(folder / source), str(folder / "out"), config, RunOptions())
    return "\n".join(preview_lines(preview))


def test_what_is_passed_over_in_a_folder_is_said(tmp_path: Path) -> None:
    write_album(
        tmp_path / "in",
        {
            "ann/1.jpg": jpeg_bytes(),
            "ann/film.mov": b"x",
            "ann/other.mov": b"x",
            "ann/notes.txt": b"x",
        },
    )
    (tmp_path / "in/bob").mkdir()
    (tmp_path / "in/bob/film.mov").write_bytes(b"x")
    text = lines(tmp_path, "in")
    assert "no photos   other_type 4" in text
    assert "extensions  mov 3, txt 1" in text
    assert "1 identity without any photo" in text
    assert "to do       1 photo of 1 identity in 1 set" in text
    assert not (tmp_path / "out").exists()


def test_photos_that_a_catalog_names_and_that_are_not_there_are_said(tmp_path: Path) -> None:
    write_album(tmp_path, {"1.jpg": jpeg_bytes()})
    (tmp_path / "c.csv").write_text("identity,uri\nann,1.jpg\nann,2.jpg\n")
    assert "1 photo of the catalog: no such file" in lines(tmp_path, "c.csv")
