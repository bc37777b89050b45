"""PNG files become files as their originals are, without any photo protected anew."""

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dladiff.config import MethodSettings
from pipeline.cli import app
from pipeline.config import OutputSettings
from pipeline.errors import ConfigurationError
from pipeline.images.coding import Coding, decode_coded, prepare
from pipeline.images.files import decode_photo
from pipeline.inspection.verify import verify_output
from pipeline.manifest_row import ManifestRow
from pipeline.options import RunOptions
from pipeline.output.fold import write_part
from pipeline.output.manifest import newest_rows
from pipeline.planning.output_format import format_of
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.upkeep.convert import conversion_lines, convert_output
from pipeline.upkeep.remeasure import Measure
from tests.pipeline.mortal_run import CONFIG, Killed, MortalStore, OwnProcess
from tests.pipeline.protected_album import LIMITS, ProtectedAlbum
from tests.sample_photos import encode, jpeg_bytes, photo_image, write_album


def light(_: MethodSettings) -> Measure:
    """Measures what needs no models."""

    def measure(
        row: ManifestRow, clean: np.ndarray, shown: np.ndarray, coding: Coding
    ) -> ManifestRow:
        change = np.abs(coding.read_back(clean).astype(int) - shown)
        return dataclasses.replace(row, coded_change_levels=int(change.max()), psnr_db=30.0)

    return measure


def album_of_known_settings(folder: Path, uri: str | None = None) -> ProtectedAlbum:
    record = {"config": {"method": CONFIG.method.model_dump(mode="json")}}
    return ProtectedAlbum(folder, output_uri=uri, record=record)


def images(store: Store) -> list[str]:
    return sorted(info.key.removeprefix("images/") for info in store.list("images/"))


NAMES = ["ann/1.jpg", "ann/2.jpg", "ben/1.jpg", "ben/2.jpg"]


def test_every_png_becomes_the_jpeg_that_its_original_is(tmp_path: Path, store: Store) -> None:
    album = album_of_known_settings(tmp_path, store.uri)
    before = {row.source_uri: row for row in newest_rows(store)}
    pixels = {
        uri: decode_photo(store.read(store.key_of(row.output_uri or "")), LIMITS).image
        for uri, row in before.items()
    }
    report = convert_output(store, "same", load=light)
    assert (report.num_converted, report.kept) == (4, {})
    assert report.num_bytes_after < report.num_bytes_before
    assert images(store) == NAMES
    assert format_of(store) == "same"
    for row in newest_rows(store):
        assert row.output_uri is not None
        content = store.read(store.key_of(row.output_uri))
        original = (album.input / row.source_uri.split("/in/")[1]).read_bytes()
        coding = prepare(original, decode_photo(original, LIMITS), "jpg", "jpg").coding
        assert content == coding.encode(pixels[row.source_uri])
        assert hashlib.sha256(content).hexdigest() == row.output_sha256
        with Image.open(io.BytesIO(content)) as after, Image.open(io.BytesIO(original)) as source:
            assert after.quantization == source.quantization  # type: ignore[attr-defined]
        kept = before[row.source_uri]
        assert (row.output_bytes, row.output_format) == (len(content), "jpeg")
        assert (row.faces, row.max_change_levels) == (kept.faces, kept.max_change_levels)
        assert (row.method_digest, row.psnr_db) == (kept.method_digest, 30.0)
        assert row.source_notes == ["converted_from_png"]
    assert verify_output(store.uri, str(album.input)).num_findings == 0
    assert conversion_lines(report)[0].startswith("converted   4 photos: ")
    assert convert_output(store, "same", load=light).num_converted == 0


def test_the_real_models_measure_the_new_file(tmp_path: Path) -> None:
    album = album_of_known_settings(tmp_path)
    convert_output(album.store, "same")
    for row in newest_rows(album.store):
        clean = decode_photo(Path(row.source_uri.removeprefix("file://")).read_bytes(), LIMITS)
        shown = decode_coded(album.store.read(album.store.key_of(row.output_uri or "")))
        error = np.mean((clean.image.astype(float) - shown) ** 2)
        assert row.psnr_db == pytest.approx(10 * np.log10(255**2 / error), rel=1e-4)
        assert row.face_visibility_jod is not None
        assert row.face_visibility_jod_1x is not None
        assert row.face_visibility_jod < row.face_visibility_jod_1x < 10
        assert {each.encoder for each in row.identity_cosines or ()} == {
            each.name for each in CONFIG.method.reported_encoders
        }
    assert verify_output(str(album.output), str(album.input)).num_findings == 0


def test_a_later_run_goes_on_with_the_new_format(tmp_path: Path) -> None:
    album = album_of_known_settings(tmp_path)
    convert_output(album.store, "same", load=light)
    write_album(album.input, {"cat/1.jpg": jpeg_bytes(seed=5)})
    same = CONFIG.model_copy(update={"output": OutputSettings(format="same")})
    options = RunOptions(on_method_change="keep")
    pool = OwnProcess(album.store)
    run_protection(str(album.input), album.store, same, options, pool=pool)
    assert images(album.store) == [*NAMES, "cat/1.jpg"]
    assert pool.num_computed == 1


def test_what_cannot_be_converted_stays_and_is_counted(tmp_path: Path) -> None:
    album = album_of_known_settings(tmp_path)
    (album.input / "ann/1.jpg").unlink()
    (album.input / "ann/2.jpg").write_bytes(jpeg_bytes(seed=77))
    album.output_file("ben/1").write_bytes(encode(photo_image(), "PNG"))
    report = convert_output(album.store, "webp", load=light)
    assert report.num_converted == 1
    assert sorted(report.kept.values()) == [1, 1, 1]
    assert images(album.store) == ["ann/1.jpg.png", "ann/2.jpg.png", "ben/1.jpg.png",
                                   "ben/2.jpg.webp"]  # fmt: skip


def test_names_that_would_meet_stay_apart(tmp_path: Path) -> None:
    photos = {"ann/a.jpg": jpeg_bytes(seed=1), "ann/b.jpg": jpeg_bytes(seed=2)}
    album = ProtectedAlbum(tmp_path, photos=photos)
    row = next(newest_rows(album.store))
    # A photo named a.jpg.png has had the key a.jpg.png.png; here b stands at a's new name.
    taken = album.store.uri_of("images/ann/A.jpg")
    rows = [dataclasses.replace(each, output_uri=taken, committed_at=None)
            for each in newest_rows(album.store) if each.source_uri != row.source_uri]  # fmt: skip

    album.store.write("images/ann/A.jpg", album.store.read("images/ann/b.jpg.png"))
    write_part(album.store, "later", rows)
    album.store.delete(["images/ann/b.jpg.png"])
    settings = CONFIG.method
    assert convert_output(album.store, "same", settings, load=light).num_converted == 1
    first, second = images(album.store)
    assert first == "ann/A.jpg"
    assert second.startswith("ann/a~")


def test_killed_anywhere_and_done_again_nothing_is_lost(tmp_path: Path) -> None:
    count = MortalStore(album_of_known_settings(tmp_path / "whole").store.uri)
    convert_output(count, "same", load=light)
    for dies_at in range(1, count.num_changes + 1):
        album = album_of_known_settings(tmp_path / str(dies_at))
        mortal = MortalStore(album.store.uri)
        mortal.dies_at = dies_at
        with pytest.raises(Killed):
            convert_output(mortal, "same", load=light)
        rows = [*newest_rows(album.store)]
        assert all(album.store.exists(album.store.key_of(row.output_uri or "")) for row in rows)
        again = MortalStore(album.store.uri)
        again.seconds_later = 1000.0
        convert_output(again, "same", load=light)
        assert images(album.store) == NAMES
        assert verify_output(str(album.output), str(album.input)).num_findings == 0


@pytest.mark.parametrize("to", ["webp", "png"])
def test_files_that_hold_no_computed_pixels_are_refused(tmp_path: Path, to: str) -> None:
    album = album_of_known_settings(tmp_path)
    convert_output(album.store, "same", load=light)
    with pytest.raises(ConfigurationError, match="choose a new OUTPUT"):
        convert_output(album.store, to, load=light)  # type: ignore[arg-type]


def test_settings_that_are_not_known_are_asked_for(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    with pytest.raises(ConfigurationError, match="--preset"):
        convert_output(album.store, "same", load=light)
    command = ["convert", str(album.output), "--preset", "zero-shot"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "converted   4 photos" in done.output
    assert images(album.store) == NAMES
