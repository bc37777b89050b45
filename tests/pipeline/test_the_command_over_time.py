"""The real command on an album that is protected, goes, comes back and moves: what it says."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from tests.sample_photos import encode, face_album, photo_image

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restored_logging")]

FEW = ("loop.num_steps=2", "recognisers=[{name: sface, kind: sface}]", "workers=1")


class Person:
    """Somebody with an album and a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, str(folder / "out")
        self.input = face_album(folder / "in", {"ann": 2, "bob": 1})

    def types(self, *arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(app, list(arguments), prog_name="dladiff")
        assert done.exit_code == code, done.output
        return done

    def protects(self, *options: str, code: int = 0) -> Result:
        settings = [part for each in FEW for part in ("--set", each)]
        places = (str(self.input), self.output)
        preset = ("--preset", "zero-shot", "--canary", "0")
        return self.types("protect", *places, *preset, *settings, *options, code=code)

    def verifies(self) -> str:
        return self.types("verify", self.output, str(self.input)).stdout.splitlines()[-1]


def test_what_is_weak_goes_comes_back_moves_or_is_done_again_is_said(tmp_path: Path) -> None:
    person = Person(tmp_path)
    source, elsewhere = person.input, tmp_path / "elsewhere"

    done = person.protects()
    weaker = "protection is weaker than preset zero-shot: loop.num_steps 2 instead of 80"
    assert weaker in done.stderr.partition("starting workers")[0]
    assert "protected 3; NONE reached the target likeness" in done.stdout
    nothing_wrong = "found       nothing wrong with the files; 3 below target"
    assert person.verifies() == nothing_wrong

    source.rename(elsewhere)
    face_album(source, {"new": 1}, side=190)
    refused = person.protects(code=1)
    assert "of 3 photos that OUTPUT remembers" in refused.stderr
    assert "3 are gone: is all of it mounted?" in refused.stderr
    assert "bug" not in refused.stderr
    (source / "new/0.png").unlink()
    (source / "new").rmdir()
    source.rmdir()
    elsewhere.rename(source)
    assert "nothing to do: 3 photos up to date" in person.protects().stderr

    (source / "bob/0.png").rename(tmp_path / "away.png")
    assert "1 photo gone from INPUT" in person.protects().output
    (tmp_path / "away.png").rename(source / "bob/0.png")
    assert person.verifies().startswith("found       nothing wrong with the files")
    person.protects()
    assert person.verifies() == nothing_wrong

    (source / "bob").rename(source / "robert")
    moved = person.protects()
    assert "copied 1 photo: of the same content as one that OUTPUT holds" in moved.stdout
    assert "starting workers" in moved.stderr
    assert person.verifies() == nothing_wrong

    (source / "ann/2.png").write_bytes(encode(photo_image(), "PNG"))
    other = ("--set", "budget.zero_shot_levels=6")
    assert "--on-method-change" in person.protects(*other, code=1).stderr
    assert "skipped 1" in person.protects(*other, "--on-method-change", "keep").stdout
    assert person.verifies() == nothing_wrong
    again = person.protects(*other, "--on-method-change", "reprotect")
    assert "protected 3" in again.stdout
    assert person.verifies() == nothing_wrong
