"""``explain`` says in sentences why a photo is or is not protected."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.errors import ConfigurationError
from pipeline.inspection.explain import explain_photo
from pipeline.output.fold import Fold, write_part
from pipeline.output.ledger import Ledger
from pipeline.output.runs import finish_run
from pipeline.reasons import Reason
from pipeline.records import photo_row
from pipeline.storage.store import open_store
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import jpeg_bytes


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    return ProtectedAlbum(tmp_path)


def explained(album: ProtectedAlbum, photo: str) -> str:
    return "\n".join(explain_photo(album.store, photo))


def decide_again(album: ProtectedAlbum, status: str, reason: str | None) -> None:
    """A second run decides on ann's first photo anew."""
    photo_set = album.photo_set([album.photos[0]])
    album.begin("run-2", [photo_set])
    album.commit("run-2", photo_set, has_outputs=False, status=status, reason=reason)
    Fold(album.store, "run-2")()
    finish_run(album.store, "run-2", {})


def test_a_protected_photo_is_explained_with_its_numbers(album: ProtectedAlbum) -> None:
    text = explained(album, str(album.input / "ann" / "1.jpg"))
    assert "It is protected (run run-1, " in text
    assert "images/ann/1.jpg.png is there." in text
    assert "Largest change: 11 of 255 levels, 0 outside faces; PSNR 38.5 dB." in text
    assert "Likeness to the original for sface (attacked): 0.05" in text


def test_what_reading_changed_of_a_photo_is_said(album: ProtectedAlbum) -> None:
    photo_set = album.photo_set([album.photos[0]])
    album.begin("run-2", [photo_set])
    album.commit("run-2", photo_set, source_notes=["first_frame", "alpha_flattened"])
    Fold(album.store, "run-2")()
    text = explained(album, album.photos[0].uri)
    assert "only its first frame is protected and served." in text
    assert "It was transparent: it was laid on white." in text


@pytest.mark.parametrize(
    "name",
    [
        "file://{input}/ann/1.jpg",
        "ann/1.jpg",
        "images/ann/1.jpg.png",
        "{output}/images/ann/1.jpg.png",
        "file://{output}/images/ann/1.jpg.png",
    ],
)
def test_a_photo_is_found_under_every_name_of_it(album: ProtectedAlbum, name: str) -> None:
    photo = name.format(input=album.input, output=album.output)
    assert explain_photo(album.store, photo)[0] == f"file://{album.input}/ann/1.jpg"


def test_several_fitting_photos_are_listed(album: ProtectedAlbum) -> None:
    with pytest.raises(ConfigurationError, match=r"2 photos fit '1.jpg', name one:\n.*ann/1.jpg"):
        explain_photo(album.store, "1.jpg")


def test_an_unknown_photo_is_answered_with_the_possible_reasons(album: ProtectedAlbum) -> None:
    text = explained(album, "/somewhere/else.jpg")
    assert "knows nothing of /somewhere/else.jpg" in text
    assert "hidden files" in text
    assert "knows nothing of /a/\ufffd.jpg" in explained(album, "/a/\udcff.jpg")


def test_a_protected_file_of_an_earlier_decision_names_nothing_any_more(
    album: ProtectedAlbum,
) -> None:
    decide_again(album, "skipped", "no_face")
    assert "knows nothing of" in explained(album, "images/ann/1.jpg.png")


def test_a_photo_that_only_an_unfinished_run_knows_is_found_beside_decided_ones(
    album: ProtectedAlbum,
) -> None:
    new = dataclasses.replace(album.photos[0], uri=f"file://{album.input}/eve/1.jpg")
    album.begin("run-2", [album.photo_set([new])])
    assert "run-2 is not finished; it planned this photo" in explained(album, "eve/1.jpg")
    with pytest.raises(ConfigurationError, match=r"3 photos fit .1\.jpg"):
        explain_photo(album.store, "1.jpg")


def test_a_missing_protected_file_is_said(album: ProtectedAlbum) -> None:
    album.output_file("ann/1").unlink()
    assert "is MISSING" in explained(album, "ann/1.jpg")


def test_a_changed_or_vanished_original_is_said(album: ProtectedAlbum) -> None:
    (album.input / "ann" / "1.jpg").write_bytes(jpeg_bytes(seed=99))
    assert "The original has changed since" in explained(album, "ann/1.jpg")
    (album.input / "ann" / "1.jpg").unlink()
    assert "cannot be found where it was" in explained(album, "ann/1.jpg")


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        ("skipped", "no_face", "It is not protected: no face was found"),
        ("skipped", "truncated: 3 bytes short", "copied whole (3 bytes short); upload it again"),
        ("failed", "GradientError", "--retry-failed"),
        ("quarantined", "crashed_3_times", "(crashed 3 times), so no run tries it any more"),
        ("layer1_only", "no_face", "It is protected by layer 1 only: no face"),
        ("source_gone", None, "was gone from INPUT"),
    ],
)
def test_every_status_has_its_sentence_and_the_past_follows(
    album: ProtectedAlbum, status: str, reason: str | None, sentence: str
) -> None:
    decide_again(album, status, reason)
    text = explained(album, "ann/1.jpg")
    assert sentence in text
    assert "Earlier: protected in run run-1" in text


def test_a_photo_put_off_is_said_with_its_cause(album: ProtectedAlbum) -> None:
    row = photo_row(album.photos[0], "deferred", reason=Reason("store_throttled"))
    write_part(album.store, "run-2", [row])
    text = explained(album, "ann/1.jpg")
    assert "It is protected (run run-1" in text
    assert "Run run-2 put it off: the environment was at fault (store_throttled)" in text


def test_what_an_unfinished_run_did_is_said(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path, finish=False)
    text = explained(album, "ann/1.jpg")
    assert "Run run-1 is not finished; it decided protected for this photo" in text
    assert "has not begun with it" in explained(album, "ben/1.jpg")
    Ledger(album.store, "run-1").begin(album.sets[1])
    assert "began 1 times (1 crashed) without a decision" in explained(album, "ben/1.jpg")


def test_no_output_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no OUTPUT"):
        explain_photo(open_store(str(tmp_path / "nowhere")), "1.jpg")
