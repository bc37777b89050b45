"""A folder as people have them: what may be a photo gets a row, all else is counted and said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.errors import ConfigurationError
from pipeline.inspection.verify import verify_output
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.permissions import forbidden
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, face_album, jpeg_bytes, photo_image, write_album


def protect(source: str, output: Store, config: RunConfig = CONFIG) -> RunOutcome:
    return run_protection(source, output, config, RunOptions(), pool=OwnProcess(output))


def statuses(output: Store, root: str) -> dict[str, str]:
    states = newest_state(output).items()
    return {uri.removeprefix(f"{root}/"): state.status for uri, state in states}


def test_every_photo_gets_a_row_and_every_other_file_is_counted(
    store: Store, tmp_path: Path
) -> None:
    photos = {
        "ann/1.jpg": jpeg_bytes(),
        "ann/2.jfif": jpeg_bytes(seed=2),
        "ann/3.JPG_large": jpeg_bytes(seed=3),
        "bob/0a1b2c": encode(photo_image(seed=4), "WEBP"),
        "bob/4.MPO": jpeg_bytes(seed=5),
        "bob/raw.nef": b"II\xbc\x01" + bytes(60),
        "bob/broken.jpg": b"no photo",
    }
    others = {"ann/film.mov": b"x", ".cache/1.jpg": b"x", "ann/Thumbs.db": b"x", "bob/empty": b""}
    for key, content in (photos | others).items():
        store.write(key, content)
    output = Store(str(tmp_path / "out"))
    outcome = protect(store.uri, output)
    assert outcome.exit_code == 0
    assert outcome.counts == {"protected": 5, "skipped": 2}
    assert outcome.passed_over == {"other_type": 1, "hidden": 2, "empty": 1}
    assert outcome.passed_over_types == {"mov": 1}
    assert set(statuses(output, store.uri)) == set(photos)
    assert protect(store.uri, output).num_sets == 0


def test_the_rest_is_done_beside_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    source = write_album(
        tmp_path / "in",
        {f"{name}/1.jpg": jpeg_bytes(seed=ord(name[0])) for name in ("ann", "bob", "cat")},
    )
    (source / "lost+found").mkdir()
    output, root = Store(str(tmp_path / "out")), f"file://{source}"
    assert protect(str(source), output).counts == {"protected": 3}
    write_album(source, {"dan/1.jpg": jpeg_bytes(seed=9)})
    (source / "cat/1.jpg").unlink()
    with forbidden(source / "bob", source / "lost+found"):
        outcome = protect(str(source), output)
    assert (outcome.exit_code, outcome.counts) == (3, {"protected": 1})
    assert outcome.passed_over == {"denied": 1, "hidden": 1}
    assert statuses(output, root) == {
        "ann/1.jpg": "protected",
        "bob/1.jpg": "protected",
        "cat/1.jpg": "source_gone",
        "dan/1.jpg": "protected",
    }
    with forbidden(source / "bob", source / "lost+found"):
        found = verify_output(output.uri, str(source))
    assert ("not_accounted", f"{root}/bob") in {(one.kind, one.where) for one in found.findings}
    with forbidden(source / "lost+found"):
        assert protect(str(source), output).exit_code == 0


def test_what_is_left_out_stays_as_it_was(tmp_path: Path) -> None:
    photos = {"ann/1.jpg": jpeg_bytes(), "bob/1.jpg": jpeg_bytes(seed=1)}
    source = write_album(tmp_path / "in", photos)
    output = Store(str(tmp_path / "out"))
    protect(str(source), output)
    write_album(source, {"bob/2.jpg": jpeg_bytes(seed=2)})
    without = CONFIG.operation.model_copy(update={"exclude": ("bob",)})
    outcome = protect(str(source), output, CONFIG.model_copy(update={"operation": without}))
    assert (outcome.counts, outcome.num_gone, outcome.passed_over) == ({}, 0, {"left_out": 2})
    assert "not_accounted" not in verify_output(output.uri, str(source), without).kinds
    assert verify_output(output.uri, str(source)).kinds["not_accounted"] == 1


def test_a_volume_that_is_not_mounted_changes_nothing(tmp_path: Path) -> None:
    source = write_album(
        tmp_path / "in", {f"ann/{number}.jpg": jpeg_bytes(seed=number) for number in range(4)}
    )
    output = Store(str(tmp_path / "out"))
    protect(str(source), output)
    (source / "ann").rename(tmp_path / "elsewhere")
    write_album(source, {"ann/.DS_Store": b"x", "lost+found/.keep": b""})
    with pytest.raises(ConfigurationError, match=r"of 4 photos .* 4 are gone: is all of it"):
        protect(str(source), output)
    write_album(source, {"ann/new.jpg": jpeg_bytes(seed=7)})
    with pytest.raises(ConfigurationError, match=r"of 4 photos .* 4 are gone"):
        protect(str(source), output)
    assert set(statuses(output, f"file://{source}").values()) == {"protected"}


@pytest.mark.slow
def test_the_command_says_what_became_of_every_file(tmp_path: Path) -> None:
    source = face_album(tmp_path / "in", {"ann": 1})
    (source / "ann/0.png").rename(source / "ann/c0ffee")
    write_album(source, {"ann/film.mov": b"x", "ann/.DS_Store": b"x", "bob/1.jxl": b"\xff\x0a12"})

    def dladiff(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        settings = "loop.num_steps=2", "recognisers=[{name: sface, kind: sface}]", "threads=1"
        changes = [part for one in settings for part in ("--set", one)]
        arguments = [command, str(folder), str(tmp_path / "out"), "--preset", "zero-shot", *changes]
        code = "from pipeline.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=os.environ,
            check=False,
        )

    done = dladiff("protect", source)
    assert done.returncode == 0, done.stderr
    assert "protected 1, skipped 1" in done.stdout
    words = "passed over in INPUT: 1 hidden or of a system, 1 no photo by their first bytes (mov 1)"
    assert words in done.stdout
    (tmp_path / "empty").mkdir()
    refused = dladiff("protect", tmp_path / "empty")
    assert refused.returncode == 1
    assert "holds no photo; it is empty" in refused.stderr
