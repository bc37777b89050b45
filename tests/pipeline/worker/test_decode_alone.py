"""Photos that end the process that decodes them are found without ending ours."""

import os
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.images.files import PhotoLimits
from pipeline.records import ReadPhoto
from pipeline.worker import decode_alone
from pipeline.worker.decode_alone import refuse_deadly_photos
from tests.sample_photos import jpeg_bytes

DEADLY = b"BM ends its decoder"


def read(content: bytes) -> ReadPhoto:
    return ReadPhoto(content, sha256(content).hexdigest())


@pytest.fixture
def deadly_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Path(__file__).parents[2] / "faults/deadly_decoder"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(decoder), *sys.path]))


@pytest.mark.usefixtures("deadly_decoder")
def test_only_the_photo_that_ends_its_process_is_refused() -> None:
    good, damaged, missing = read(jpeg_bytes()), read(b"no image"), ReadPhoto(None, None)
    checked = refuse_deadly_photos([good, read(DEADLY), damaged, missing], PhotoLimits(), 60)
    assert (checked[0], *checked[2:]) == (good, damaged, missing)
    assert checked[1].content is None
    assert checked[1].sha256 == sha256(DEADLY).hexdigest()
    assert str(checked[1].reason) == "corrupt: decoding it ends the process"


@pytest.mark.usefixtures("deadly_decoder")
def test_a_photo_whose_decoding_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (spins,) = refuse_deadly_photos([read(b"BM spins for ever")], PhotoLimits(), 0.5)
    assert spins.content is None
    monkeypatch.setattr(decode_alone, "MAX_WAIT_S", 20.0)
    (waits,) = refuse_deadly_photos([read(b"BM waits for ever")], PhotoLimits(), 60)
    assert waits.content is None


def test_a_process_that_is_slow_to_start_condemns_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_alone, "MAX_WAIT_S", 0.001)
    with pytest.raises(RuntimeError, match="does not start"):
        refuse_deadly_photos([read(jpeg_bytes())], PhotoLimits(), 60)


def test_a_process_that_cannot_start_condemns_no_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(RuntimeError, match="cannot try a photo out"):
        refuse_deadly_photos([read(jpeg_bytes())], PhotoLimits(), 60)
